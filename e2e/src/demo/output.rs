//! How the demo speaks: a line with the time for each step, and what a command printed, indented.

use std::sync::OnceLock;
use std::time::Instant;

/// One line of the story.
pub fn print_step(sentence: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs_f32();
    println!("{seconds:6.1} s  {sentence}");
}

/// What a command printed, its first lines.
pub(super) fn print_output(command: &str, output: &str, most: usize) {
    println!("\n          $ {command}");
    for line in output.lines().take(most) {
        println!("          {}", line.trim_end());
    }
    let more = output.lines().count().saturating_sub(most);
    if more > 0 {
        println!("          … {more} more");
    }
    println!();
}
