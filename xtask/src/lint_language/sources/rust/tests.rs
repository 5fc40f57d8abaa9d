use super::*;

fn read(text: &str, test_code: bool) -> Vec<Vec<(usize, String)>> {
    let blocks = blocks(text, test_code).into_iter();
    blocks.map(|block| block.into_iter().map(|line| (line.number, line.text)).collect()).collect()
}

fn line(number: usize, text: &str) -> (usize, String) {
    (number, text.to_owned())
}

#[test]
fn comments_of_one_kind_are_one_block_and_an_empty_line_ends_it() {
    let text = "//! a\n//! b\n\n// c\n/// d\n/// e\nfn f() {} // g\n// h\n\n// i";
    assert_eq!(
        read(text, false),
        [
            vec![line(1, "a"), line(2, "b")],
            vec![line(4, "c")],
            vec![line(5, "d"), line(6, "e")],
            vec![line(7, "g"), line(8, "h")],
            vec![line(10, "i")],
        ]
    );
}

#[test]
fn comment_signs_in_a_literal_are_no_comment_and_quotes_in_a_comment_no_literal() {
    assert_eq!(
        read("let a = \"// no\"; let b = r#\"/* \"no\" */\"#; // say \"one two three four\"", false),
        [vec![line(1, "say \"one two three four\"")]]
    );
}

#[test]
fn block_comments_lose_their_stars() {
    assert_eq!(read("/* a\n * b */", false), [vec![line(1, "a"), line(2, "b ")]]);
}

#[test]
fn a_literal_of_four_words_is_a_message_and_a_shorter_one_is_not() {
    assert_eq!(
        read("f(\"the pool {name} is full\"); g(\"application/json\", \"a b c\")", false),
        [vec![line(1, "the pool {name} is full")]]
    );
}

#[test]
fn a_continued_literal_keeps_the_numbers_of_its_lines() {
    let text = "f(\n    \"the pool is full \\\n     and no block is free\\nnew line \\\"x\\\"\"\n)";
    assert_eq!(
        read(text, false),
        [vec![line(2, "the pool is full "), line(3, "and no block is free"), line(3, ""), line(3, "new line \"x\""),]]
    );
}

#[test]
fn expressions_and_commands_are_no_messages() {
    assert!(read("f(\"self.spec.a has no more than b\"); g(\"run this one and --that too now\")", false).is_empty());
}

#[test]
fn literals_of_test_code_are_skipped_but_for_the_names_of_tests() {
    let text =
        "#[cfg(test)]\nmod tests {\n fn a() { b(\"one two three four\") } }\nfn c() { d(\"five six seven eight\") }";
    assert_eq!(read(text, false), [vec![line(4, "five six seven eight")]]);
    let text = "stage.test(\"a pod gets an address\", || check(\"one two three four\"))";
    assert_eq!(read(text, true), [vec![line(1, "a pod gets an address")]]);
}

#[test]
fn an_attribute_of_a_module_in_another_file_ends_at_its_semicolon() {
    assert_eq!(read("#[cfg(test)]\nmod tests;\nfn a() { b(\"one two three four\") }", false).len(), 1);
}

#[test]
fn lifetimes_and_characters_do_not_open_literals() {
    assert_eq!(read("fn a<'a>(b: &'a str) { c('\"', '\\''); } // one", false), [vec![line(1, "one")]]);
}
