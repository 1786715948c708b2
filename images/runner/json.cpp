#include "json.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace melt {
namespace {

constexpr int deepest = 64;

struct Character {
    size_t length;  // bytes of it, or of what cannot be the beginning of one
    bool valid;
};

// What is at a place of a text that should be UTF-8.
Character character_at(const std::string & text, size_t at) {
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
    const unsigned lead = byte(at);
    if (lead < 0x80) {
        return {1, true};
    }
    const size_t length = lead < 0xC2 || lead > 0xF4 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    for (size_t found = 1; found < length; ++found) {
        // Longer forms than needed, halves of pairs and what lies beyond Unicode show in the second byte.
        const unsigned low = found > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        const unsigned high = found > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (byte(at + found) < low || byte(at + found) > high) {
            return {found, false};
        }
    }
    return length == 0 ? Character{1, false} : Character{length, true};
}

void append_utf8(std::string & text, unsigned code) {
    const auto byte = [&](unsigned value) { text += static_cast<char>(value); };
    if (code < 0x80) {
        byte(code);
    } else if (code < 0x800) {
        byte(0xC0 | code >> 6U);
        byte(0x80 | (code & 0x3FU));
    } else if (code < 0x10000) {
        byte(0xE0 | code >> 12U);
        byte(0x80 | (code >> 6U & 0x3FU));
        byte(0x80 | (code & 0x3FU));
    } else {
        byte(0xF0 | code >> 18U);
        byte(0x80 | (code >> 12U & 0x3FU));
        byte(0x80 | (code >> 6U & 0x3FU));
        byte(0x80 | (code & 0x3FU));
    }
}

class Parser {
public:
    explicit Parser(const std::string & text) : text(text) {}

    Json whole() {
        Json found = value(0);
        skip_space();
        if (at != text.size()) {
            fail("something follows the value");
        }
        return found;
    }

private:
    [[noreturn]] void fail(const std::string & problem) const {
        throw JsonError(problem + " at byte " + std::to_string(at));
    }

    char peek() const { return at < text.size() ? text[at] : '\0'; }

    void skip_space() {
        while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') {
            ++at;
        }
    }

    // Whether the next character but for space is this one, which is then behind us.
    bool take(char wanted) {
        skip_space();
        const bool found = peek() == wanted;
        at += found ? 1 : 0;
        return found;
    }

    void expect(char wanted) {
        if (!take(wanted)) {
            fail(std::string("expected ") + wanted);
        }
    }

    bool word(const char * wanted) {
        const std::string name = wanted;
        const bool found = text.compare(at, name.size(), name) == 0;
        at += found ? name.size() : 0;
        return found;
    }

    Json value(int depth) {
        if (depth > deepest) {
            fail("values are nested too deeply");
        }
        if (take('{')) {
            return object(depth);
        }
        if (take('[')) {
            return array(depth);
        }
        if (take('"')) {
            return string();
        }
        if (word("true") || word("false")) {
            return text[at - 2] == 'u';
        }
        return word("null") ? Json() : number();
    }

    Json array(int depth) {
        Json::Array items;
        if (take(']')) {
            return items;
        }
        do {
            items.push_back(value(depth + 1));
        } while (take(','));
        expect(']');
        return items;
    }

    Json object(int depth) {
        Json::Object members;
        if (take('}')) {
            return members;
        }
        do {
            expect('"');
            std::string name = string();
            for (const auto & [known, _] : members) {
                if (known == name) {
                    fail("the name " + Json(name).dump() + " is there twice");
                }
            }
            expect(':');
            members.emplace_back(std::move(name), value(depth + 1));
        } while (take(','));
        expect('}');
        return members;
    }

    // The rest of a text, whose first quote is behind us.
    std::string string() {
        std::string found;
        for (; peek() != '"';) {
            if (static_cast<unsigned char>(peek()) < 0x20) {
                fail(at < text.size() ? "a control character in a text" : "a text without end");
            }
            if (peek() == '\\') {
                ++at;
                append_utf8(found, escape());
                continue;
            }
            const Character next = character_at(text, at);
            if (!next.valid) {
                fail("a text is no UTF-8");
            }
            found.append(text, at, next.length);
            at += next.length;
        }
        ++at;
        return found;
    }

    unsigned escape() {
        static const std::string names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        const size_t known = at < text.size() ? names.find(text[at]) : std::string::npos;
        if (known != std::string::npos) {
            ++at;
            return static_cast<unsigned char>(meanings[known]);
        }
        const unsigned high = unit();
        if (high < 0xD800 || high > 0xDFFF) {
            return high;
        }
        const unsigned low = high < 0xDC00 && word("\\") ? unit() : 0;
        if (low < 0xDC00 || low > 0xDFFF) {
            fail("half of a pair of escapes");
        }
        return 0x10000 + ((high - 0xD800) << 10U) + (low - 0xDC00);
    }

    // `uXXXX`.
    unsigned unit() {
        const std::string digits = text.substr(at, 5);
        if (digits.size() != 5 || digits[0] != 'u' || digits.find_first_not_of("0123456789abcdefABCDEF", 1) != digits.npos) {
            fail("an unknown escape");
        }
        at += 5;
        return static_cast<unsigned>(std::stoul(digits.substr(1), nullptr, 16));
    }

    void digits() {
        if (peek() < '0' || peek() > '9') {
            fail("expected a value");
        }
        while (peek() >= '0' && peek() <= '9') {
            ++at;
        }
    }

    Json number() {
        const size_t begin = at;
        word("-");
        if (!word("0")) {
            digits();
        }
        const size_t end = at;
        if (word(".")) {
            digits();
        }
        if (word("e") || word("E")) {
            at += peek() == '+' || peek() == '-' ? 1 : 0;
            digits();
        }
        const std::string found = text.substr(begin, at - begin);
        if (at == end) {
            errno = 0;
            const long long whole = std::strtoll(found.c_str(), nullptr, 10);
            if (errno == 0) {
                return whole;
            }
        }
        const double real = std::strtod(found.c_str(), nullptr);
        if (!std::isfinite(real)) {
            fail("a number beyond all bounds");
        }
        return real;
    }

    const std::string & text;
    size_t at = 0;
};

void write(std::string & out, const std::string & text) {
    out += '"';
    for (size_t at = 0; at < text.size();) {
        const Character next = character_at(text, at);
        const auto byte = static_cast<unsigned char>(text[at]);
        static const std::string special = "\"\\\b\f\n\r\t", names = "\"\\bfnrt";
        const size_t known = special.find(text[at]);
        if (!next.valid) {
            out += "\xEF\xBF\xBD";
        } else if (known != std::string::npos) {
            out += {'\\', names[known]};
        } else if (byte < 0x20) {
            char code[8];
            std::snprintf(code, sizeof code, "\\u%04x", byte);
            out += code;
        } else {
            out.append(text, at, next.length);
        }
        at += next.length;
    }
    out += '"';
}

void write(std::string & out, double number) {
    if (!std::isfinite(number)) {
        out += "null";
        return;
    }
    // The shortest that reads as the same number, and as one that is not whole by its kind.
    char digits[32];
    for (int precision = 15; precision <= 17; ++precision) {
        std::snprintf(digits, sizeof digits, "%.*g", precision, number);
        if (std::strtod(digits, nullptr) == number) {
            break;
        }
    }
    out += digits;
    if (std::string(digits).find_first_of(".e") == std::string::npos) {
        out += ".0";
    }
}

void write(std::string & out, const Json & value) {
    char separator = '[';
    if (const auto * items = value.as<Json::Array>()) {
        for (const Json & item : *items) {
            out += std::exchange(separator, ',');
            write(out, item);
        }
        out += items->empty() ? "[]" : "]";
    } else if (const auto * members = value.as<Json::Object>()) {
        separator = '{';
        for (const auto & [name, member] : *members) {
            out += std::exchange(separator, ',');
            write(out, name);
            out += ':';
            write(out, member);
        }
        out += members->empty() ? "{}" : "}";
    } else if (const auto * text = value.as<std::string>()) {
        write(out, *text);
    } else if (const auto * whole = value.as<int64_t>()) {
        out += std::to_string(*whole);
    } else if (const auto * real = value.as<double>()) {
        write(out, *real);
    } else if (const auto * truth = value.as<bool>()) {
        out += *truth ? "true" : "false";
    } else {
        out += "null";
    }
}

}  // namespace

Json Json::parse(const std::string & text) { return Parser(text).whole(); }

std::string Json::dump() const {
    std::string out;
    write(out, *this);
    return out;
}

double Json::number() const {
    const auto * whole = as<int64_t>();
    return whole != nullptr ? static_cast<double>(*whole) : get<double>();
}

const Json * Json::find(const std::string & name) const {
    if (const auto * members = as<Object>()) {
        for (const auto & [known, member] : *members) {
            if (known == name) {
                return &member;
            }
        }
    }
    return nullptr;
}

const Json & Json::at(const std::string & name) const {
    if (const Json * member = find(name)) {
        return *member;
    }
    throw JsonError("there is no " + name + " in " + dump());
}

}  // namespace melt
