//! Prints numbers with their nouns.

use std::fmt::Display;

/// The number and the noun, in the plural if it needs one, for example `1 finding` and `2 addresses`.
pub(crate) fn counted(number: impl Display, noun: &str) -> String {
    let number = number.to_string();
    let ending = match number.as_str() {
        "1" => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_in_the_singular() {
        assert_eq!(
            [counted(0, "block"), counted(1, "block"), counted(2, "block")],
            ["0 blocks", "1 block", "2 blocks"]
        );
        assert_eq!([counted(1, "address"), counted(11, "address")], ["1 address", "11 addresses"]);
    }
}
