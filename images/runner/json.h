// JSON as requests, plans and events need it: read strictly, written on one line, members in the order in which they came.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace melt {

// A text that is no JSON, or a value of another kind than was asked for.
class JsonError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

class Json {
public:
    using Array = std::vector<Json>;
    using Object = std::vector<std::pair<std::string, Json>>;

    Json(std::nullptr_t = nullptr) {}
    Json(bool truth) : value(truth) {}
    template <typename T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
    Json(T number) : value(static_cast<int64_t>(number)) {}
    Json(double number) : value(number) {}
    Json(const char * text) : value(std::string(text)) {}
    Json(std::string text) : value(std::move(text)) {}
    Json(Array items) : value(std::move(items)) {}
    Json(Object members) : value(std::move(members)) {}
    template <typename T>
    Json(const std::optional<T> & maybe) : Json(maybe ? Json(*maybe) : Json()) {}

    // Exactly one value, in UTF-8, no name twice in an object; throws JsonError.
    static Json parse(const std::string & text);

    // Bytes in texts that are no UTF-8 become U+FFFD.
    std::string dump() const;

    // The value, where it is of this kind: bool, int64_t, double, std::string, Array or Object.
    template <typename T>
    const T * as() const {
        return std::get_if<T>(&value);
    }
    // The same where nothing else will do; throws JsonError.
    template <typename T>
    const T & get() const {
        if (const T * found = as<T>()) {
            return *found;
        }
        throw JsonError("a value is of the wrong kind: " + dump());
    }
    // A number, whole or not.
    double number() const;

    // A member of an object.
    const Json * find(const std::string & name) const;
    const Json & at(const std::string & name) const;

private:
    std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value = nullptr;
};

}  // namespace melt
