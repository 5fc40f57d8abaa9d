use super::*;
use crate::lint_language::prose::Line;

fn read(text: &str) -> Vec<Vec<String>> {
    let block = text.lines().zip(10..).map(|(text, number)| Line { number, text: text.to_owned() }).collect();
    passages(&block).into_iter().map(|passage| passage.into_iter().map(|word| word.text).collect()).collect()
}

#[test]
fn a_paragraph_goes_on_across_lines_and_ends_at_an_empty_one() {
    assert_eq!(read("one two\nthree\n\nfour"), [vec!["one", "two", "three"], vec!["four"]]);
}

#[test]
fn a_list_ends_the_sentence_before_it_and_each_item_is_a_passage() {
    assert_eq!(read("two things:\n- one\n  more\n- two"), [vec!["two", "things:"], vec!["one", "more"], vec!["two"]]);
}

#[test]
fn a_table_cell_is_a_passage() {
    assert_eq!(read("| a b | c |\n|---|---|\n| d | e |"), [vec!["a", "b"], vec!["c"], vec!["d"], vec!["e"]]);
}

#[test]
fn a_code_span_is_one_word_and_a_code_block_none() {
    assert_eq!(
        read("run `a b c`, then\n\n```\nx y z\n```\n\ndone"),
        [vec!["run", "`a\u{a0}b\u{a0}c`,", "then"], vec!["done"]]
    );
}

#[test]
fn emphasis_and_underscores_do_not_split_words() {
    assert_eq!(
        read("a **b**c snake_case [link text](https://example.com)"),
        [vec!["a", "bc", "snake_case", "link", "text"]]
    );
}

#[test]
fn a_word_knows_its_line() {
    let block = vec![Line { number: 7, text: "one".to_owned() }, Line { number: 9, text: "two `x y`".to_owned() }];
    let lines: Vec<usize> = passages(&block)[0].iter().map(|word| word.line).collect();
    assert_eq!(lines, [7, 9, 9]);
}
