//! Parses the durations in flags. A duration is a whole number and a unit, as in the schema of the chart values.

use std::time::Duration;

use jiff::fmt::friendly::SpanParser;

/// The units that the chart's schema allows.
const UNITS: [&str; 4] = ["ms", "s", "m", "h"];

/// The text of a flag is not a duration that the flag accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is not a duration.
    #[error("{0:?} is not a duration: write a whole number and a unit (ms, s, m or h), for example 30s")]
    Malformed(String),
    /// The duration is longer than the flag accepts.
    #[error("{0:?} is too long: set at most {1} s")]
    TooLong(String, u64),
}

/// Parses a duration such as `200ms`, `30s`, `15m` or `1h`.
///
/// The library jiff would also accept `1h 30m` or `1 day`. Bobbin refuses such texts, so that flags accept the same
/// texts as chart values.
///
/// # Errors
/// Fails if the text is not a whole number with one of the units, or if the duration is too large.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError::Malformed(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || !UNITS.contains(&&text[digits..]) {
        return Err(error());
    }
    SpanParser::new().parse_unsigned_duration(text).map_err(|_| error())
}

/// Parses a duration of at most `max`, like [`parse_duration`].
///
/// # Errors
/// Fails if the text is not a duration, or if the duration is longer than `max`.
pub fn parse_duration_up_to(text: &str, max: Duration) -> Result<Duration, DurationError> {
    let too_long = || DurationError::TooLong(text.to_owned(), max.as_secs());
    parse_duration(text).and_then(|duration| (duration <= max).then_some(duration).ok_or_else(too_long))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_that_is_too_long_is_refused_with_the_longest() {
        let max = Duration::from_secs(50);
        assert_eq!(parse_duration_up_to("50s", max), Ok(max));
        let message = parse_duration_up_to("1m", max).map_err(|error| error.to_string());
        assert_eq!(message, Err("\"1m\" is too long: set at most 50 s".to_owned()));
        assert_eq!(parse_duration_up_to("1d", max), Err(DurationError::Malformed("1d".to_owned())));
    }

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("300s"), Ok(Duration::from_mins(5)));
        assert_eq!(parse_duration("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_hours(2)));
    }

    #[test]
    fn any_other_text_is_refused_with_an_example() {
        let refused = [
            "",
            " ",
            "30",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "5d",
            "5us",
            "1 s",
            " 1s",
            "1s ",
            "1h30m",
            "1h 30m",
            "1s ago",
            "5sec",
            "PT5S",
            "5S",
            "٣s",
            "18446744073709551615h",
            "99999999999999999999s",
        ];
        for text in refused {
            assert_eq!(parse_duration(text), Err(DurationError::Malformed(text.to_owned())));
        }
        let message = parse_duration("").map_err(|error| error.to_string());
        let expected = r#""" is not a duration: write a whole number and a unit (ms, s, m or h), for example 30s"#;
        assert_eq!(message, Err(expected.to_owned()));
    }
}
