//! The demo's output: a line with the time for each step, and the indented output of commands.

use std::sync::OnceLock;
use std::time::Instant;

/// Prints one step of the demo.
pub fn print_step(sentence: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs_f32();
    println!("{seconds:6.1} s  {sentence}");
}

/// Prints a command and the first lines of its output.
pub(super) fn print_output(command: &str, output: &str, most: usize) {
    println!("\n          $ {command}");
    for line in output.lines().take(most) {
        println!("          {}", line.trim_end());
    }
    let more = output.lines().count().saturating_sub(most);
    if more > 0 {
        println!("          … {more} more lines");
    }
    println!();
}
