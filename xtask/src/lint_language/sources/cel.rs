//! Finds the text parts of a message that a CEL expression assembles.

/// The quoted texts of a CEL expression, with `{}` in place of the code between them.
pub fn quoted(expression: &str) -> String {
    let parts = expression.split('\'').enumerate();
    parts.map(|(number, part)| if number % 2 == 1 { part } else { between(part) }).collect()
}

fn between(code: &str) -> &'static str {
    if code.trim().is_empty() { "" } else { "{}" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_a_message_are_joined_and_an_expression_without_texts_is_empty() {
        assert_eq!(quoted("'block ' + self.name + ' is free'"), "block {} is free");
        assert_eq!(quoted("self.all(s, has(s.ipv4)) && self.size() > 1"), "{}");
    }
}
