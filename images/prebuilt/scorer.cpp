// melt-scorer request.json data [expected]: how probable an engine finds answers, or the tokens of a text; docs/accuracy.md says what is
// printed.
//
// The request is that of a scoring trial. Data are a text, or questions as JSON: of every question the texts of which one is to be
// chosen, the number of the right one and, where not all tokens after a common beginning count, what comes before those that do; or the
// question, behind which all of them count for other rules.
// `expected` is what an unquantized model expects of the text (expectations.h).

#include "engine.h"
#include "expectations.h"
#include "failure.h"
#include "fields.h"
#include "json.h"
#include "signals.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <unistd.h>

namespace melt {
namespace {

using Tokens = std::vector<Token>;

std::string content_of(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    if (!(content << file.rdbuf())) {
        throw Failure(ExitCode::bad_request, "cannot read " + path + ", or it is empty");
    }
    return content.str();
}

void say(const Json::Object & line) {
    std::printf("%s\n", Json(line).dump().c_str());
    if (std::fflush(stdout) != 0) {
        throw Failure(ExitCode::events, "cannot write a score");
    }
}

class Scorer {
public:
    Scorer(Engine & engine, const Json & request) : engine(engine) {
        const auto number = [&](const char * name) { return static_cast<int32_t>(request.at(name).get<int64_t>()); };
        Json::Object options = {{"threads", number("threads")}};
        if (const Json * given = request.find("options"); given != nullptr) {
            const auto & members = given->get<Json::Object>();
            options.insert(options.end(), members.begin(), members.end());
        }
        const Json all(options);
        Fields fields(all, "options");
        const int64_t threads = fields.integer("threads", 1, 512);
        engine.read_options(fields);
        fields.finish();
        const std::string & model = request.at("model").get<std::string>();
        enter_step(ExitCode::model);
        engine.check(model);
        const ModelFacts loaded = engine.load(model);
        vocabulary = static_cast<size_t>(loaded.n_vocab);
        enter_step(ExitCode::context);
        context = static_cast<size_t>(number("context"));
        if (loaded.n_ctx_train > 0 && number("context") > loaded.n_ctx_train) {
            throw Unscorable("a context of " + std::to_string(context) + " tokens is longer than the " +
                             std::to_string(loaded.n_ctx_train) + " that the model was trained for");
        }
        const ContextFacts facts = engine.open({number("context"), static_cast<int32_t>(threads), number("batch"), false, 1});
        batch = static_cast<size_t>(facts.n_batch);
        enter_step(ExitCode::decode);
    }

    // A line for each question: the mean log-probability of each answer's tokens that count, and which is the highest; where all that
    // follows the question counts for somebody, the sum of that too, and how many characters it has.
    void ask(const Json::Array & questions) {
        for (size_t i = 0; i < questions.size(); ++i) {
            const Json & question = questions[i];
            std::vector<Tokens> texts;
            for (const Json & text : question.at("texts").get<Json::Array>()) {
                const size_t count = texts.emplace_back(engine.tokenize(text.get<std::string>(), true)).size();
                if (count < 2 || count > context) {
                    throw Unscorable("question " + std::to_string(i + 1) + " has " + std::to_string(count) + " tokens, and 2 to " +
                                     std::to_string(context) + " are expected");
                }
            }
            const size_t common = common_beginning(texts);
            const Json * asked = question.find("question");
            const std::string stem = asked == nullptr ? "" : asked->get<std::string>();
            const size_t stem_tokens = asked == nullptr ? 0 : engine.tokenize(stem, true).size();
            Json::Array scores, counts, sums, characters;
            double best = -HUGE_VAL;
            size_t chosen = 0;
            for (size_t answer = 0; answer < texts.size(); ++answer) {
                const Tokens & tokens = texts[answer];
                size_t begin = common, end = tokens.size();
                if (const Json * given = question.find("given"); given != nullptr) {
                    begin = engine.tokenize(given->get<Json::Array>().at(answer).get<std::string>(), true).size();
                    end -= end - std::min(begin, end) > 1 ? 1 : 0;  // without the full stop, which every sentence has
                }
                begin = std::clamp<size_t>(begin, 1, tokens.size() - 1);
                end = std::max(end, begin + 1);
                const size_t behind = asked == nullptr ? begin : std::clamp<size_t>(stem_tokens, 1, tokens.size() - 1);
                double counted = 0, whole = 0;
                size_t place = std::min(begin, behind);
                walk(tokens, place, end, [&](Token token) {
                    const double found = log_probability_of(token);
                    counted += place >= begin ? found : 0;
                    whole += place >= behind ? found : 0;
                    ++place;
                });
                const double score = counted / static_cast<double>(end - begin);
                if (score > best) {
                    best = score;
                    chosen = answer;
                }
                scores.emplace_back(score);
                counts.emplace_back(end - begin);
                sums.emplace_back(whole);
                characters.emplace_back(characters_of(question.at("texts").get<Json::Array>()[answer].get<std::string>(), stem));
            }
            const bool right = static_cast<int64_t>(chosen) == question.at("gold").get<int64_t>();
            Json::Object line{{"question", i + 1}, {"chosen", chosen}, {"right", right}, {"scores", scores}, {"tokens", counts}};
            if (asked != nullptr) {
                line.insert(line.end(), {{"sums", sums}, {"characters", characters}, {"gold", question.at("gold").get<int64_t>()}});
            }
            say(line);
        }
    }

    // A line for each window of a text: the sum, and that of the squares, of the negative log-probabilities of its second half.
    void read(const std::string & text, int64_t windows) {
        const Tokens tokens = engine.tokenize(text, true);
        const auto whole = static_cast<int64_t>(tokens.size() / context);
        if (whole < std::max<int64_t>(windows, 1)) {
            throw Unscorable("the text has " + std::to_string(tokens.size()) + " tokens, which are " + std::to_string(whole) +
                             " windows of " + std::to_string(context));
        }
        for (int64_t window = 0; window < (windows > 0 ? windows : whole); ++window) {
            Sum surprise;
            walk(window_of(tokens, window), context / 2 + 1, context, [&](Token token) { surprise.add(-log_probability_of(token)); });
            say({{"window", window + 1},
                 {"tokens", context - 1 - context / 2},
                 {"sum", surprise.sum},
                 {"squares", surprise.squares}});
        }
    }

    // The same beside what an unquantized model expects of the same tokens: the divergence from it, and where both have one top token.
    void compare(const std::string & text, Expectations & expected) {
        expected.require(engine.tokenize(text, true), context, vocabulary);
        for (int64_t window = 0; window < expected.windows; ++window) {
            Sum surprise, divergence;
            int64_t same_top = 0;
            walk(window_of(expected.tokens, window), context / 2 + 1, context, [&](Token token) {
                const Compared found = expected.compare(engine.logits(), log_total());
                surprise.add(-log_probability_of(token));
                divergence.add(found.divergence);
                same_top += found.same_top ? 1 : 0;
            });
            say({{"window", window + 1},
                 {"tokens", context - 1 - context / 2},
                 {"sum", surprise.sum},
                 {"squares", surprise.squares},
                 {"divergence", divergence.sum},
                 {"divergence_squares", divergence.squares},
                 {"same_top", same_top}});
        }
    }

private:
    struct Sum {
        void add(double value) {
            sum += value;
            squares += value * value;
        }
        double sum = 0, squares = 0;
    };

    // With what stands before every text, where anything does.
    Tokens window_of(const Tokens & tokens, int64_t window) const {
        const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(window) * context);
        Tokens part(first, first + static_cast<std::ptrdiff_t>(context));
        const Tokens beginning = engine.tokenize("", true);
        std::copy(beginning.begin(), beginning.end(), part.begin());
        return part;
    }

    static size_t common_beginning(const std::vector<Tokens> & texts) {
        const auto differ = [&](size_t place) {
            return std::any_of(texts.begin(), texts.end(), [&](const Tokens & tokens) {
                return place >= tokens.size() || tokens[place] != texts.front()[place];
            });
        };
        size_t place = 0;
        while (!differ(place)) {
            ++place;
        }
        return place;
    }

    // Of an answer in UTF-8, without the question and the space before it.
    static int64_t characters_of(const std::string & text, const std::string & stem) {
        const auto first = text.begin() + static_cast<std::ptrdiff_t>(std::min(text.size(), stem.size() + 1));
        return std::count_if(first, text.end(), [](char byte) { return (byte & 0xC0) != 0x80; });
    }

    // Takes each token from `begin` to `end`, with the engine's logits given all that stand before it.
    template <typename Take>
    void walk(const Tokens & tokens, size_t begin, size_t end, Take take) {
        engine.clear();
        for (size_t place = 0; place < begin;) {
            throw_if_stopped();
            const size_t count = std::min(batch, begin - place);
            engine.decode(tokens.data() + place, count);
            place += count;
        }
        for (size_t place = begin; place < end; ++place) {
            throw_if_stopped();
            take(tokens[place]);
            if (place + 1 < end) {
                engine.decode(&tokens[place], 1);
            }
        }
    }

    double log_probability_of(Token token) { return static_cast<double>(engine.logits()[token]) - log_total(); }

    // Less this, a logit is a log-probability.
    double log_total() {
        const float * logits = engine.logits();
        const float most = *std::max_element(logits, logits + vocabulary);
        double sum = 0;
        for (size_t i = 0; i < vocabulary; ++i) {
            sum += std::exp(static_cast<double>(logits[i]) - most);
        }
        return most + std::log(sum);
    }

    Engine & engine;
    size_t vocabulary = 0, context = 0, batch = 1;
};

void score(const std::string & request_path, const std::string & data_path, const char * expected_path) {
    const std::unique_ptr<Engine> engine = make_engine();
    Json request, data;
    const std::string content = content_of(data_path);
    try {
        request = Json::parse(content_of(request_path));
        Scorer scorer(*engine, request);
        if (expected_path != nullptr) {
            Expectations expected(expected_path);
            scorer.compare(content, expected);
        } else if (request.at("mode").get<std::string>() == "perplexity") {
            const Json * chunks = request.find("chunks");
            scorer.read(content, chunks == nullptr ? 0 : chunks->get<int64_t>());
        } else {
            data = Json::parse(content);
            scorer.ask(data.at("questions").get<Json::Array>());
        }
    } catch (const JsonError & error) {
        throw Failure(ExitCode::bad_request, std::string("request or questions: ") + error.what());
    } catch (const Unscorable & reason) {
        say({{"refused", reason.what()}});
        return;
    }
    say({{"done", true}});
}

int give_up(int code, const std::string & message) {
    std::fprintf(stderr, "melt-scorer: %s\n", message.c_str());
    return code;
}

}  // namespace
}  // namespace melt

int main(int argc, char ** argv) {
    using namespace melt;
    if (argc != 3 && argc != 4) {
        return give_up(static_cast<int>(ExitCode::bad_request), "usage: melt-scorer request.json data [expected]");
    }
    install_signal_handlers(STDERR_FILENO);
    try {
        score(argv[1], argv[2], argc == 4 ? argv[3] : nullptr);
    } catch (const Stopped & stopped) {
        return give_up(128 + stopped.signal, "stopped by signal " + std::to_string(stopped.signal));
    } catch (const Failure & failure) {
        return give_up(static_cast<int>(failure.code), failure.what());
    } catch (const std::bad_alloc &) {
        return give_up(static_cast<int>(current_step()), "out of memory");
    } catch (const std::exception & error) {
        return give_up(static_cast<int>(current_step()), std::string("the framework threw: ") + error.what());
    }
    return static_cast<int>(ExitCode::ok);
}
