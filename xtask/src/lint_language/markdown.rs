//! Parses a block of lines as Markdown, and divides its prose into passages.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::prose::{Block, Passage, Word};

/// The character that replaces spaces in a code span, so that the whole span counts as one word.
const NO_BREAK_SPACE: &str = "\u{a0}";

/// The paragraphs, headings, list items and table cells of a block of lines. Code blocks are left out.
pub fn passages(block: &Block) -> Vec<Passage> {
    let text: String = block.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
    let mut starts = Vec::with_capacity(block.len());
    let mut start = 0;
    for line in block {
        starts.push(start);
        start += line.text.len() + 1;
    }
    let line_of = |offset: usize| {
        let index = starts.partition_point(|start| *start <= offset).saturating_sub(1);
        block.get(index).map_or(0, |line| line.number)
    };
    let mut writer = Writer::default();
    let mut in_code_block = false;
    for (event, range) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
        let line = line_of(range.start);
        match event {
            Event::Start(Tag::CodeBlock(_)) => in_code_block = true,
            Event::End(TagEnd::CodeBlock) => in_code_block = false,
            _ if in_code_block => {}
            Event::Start(tag) if !is_inline(tag.to_end()) => writer.end_passage(),
            Event::End(tag) if !is_inline(tag) => writer.end_passage(),
            Event::Text(text) | Event::InlineHtml(text) => writer.text(&text, line),
            Event::Code(code) => writer.push(&format!("`{}`", code.replace(' ', NO_BREAK_SPACE)), line),
            Event::SoftBreak | Event::HardBreak => writer.end_word(),
            _ => {}
        }
    }
    writer.end_passage();
    writer.passages
}

fn is_inline(tag: TagEnd) -> bool {
    matches!(tag, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough | TagEnd::Link | TagEnd::Image)
}

/// Joins the parts of a word that come in separate Markdown events.
#[derive(Default)]
struct Writer {
    passages: Vec<Passage>,
    words: Passage,
    word: Option<Word>,
}

impl Writer {
    fn text(&mut self, text: &str, line: usize) {
        let mut parts = text.split([' ', '\t', '\n']);
        if let Some(first) = parts.next() {
            self.push(first, line);
        }
        for part in parts {
            self.end_word();
            self.push(part, line);
        }
    }

    fn push(&mut self, part: &str, line: usize) {
        if !part.is_empty() {
            self.word.get_or_insert_with(|| Word { line, text: String::new() }).text.push_str(part);
        }
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_passage(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            self.passages.push(std::mem::take(&mut self.words));
        }
    }
}

#[cfg(test)]
mod tests;
