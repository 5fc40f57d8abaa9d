//! Prints the answer to a CNI call, and builds the shim's own error objects. This module uses no JSON library, so that
//! the shim stays small.

use bobbin_cni_wire::code::Code;
use bobbin_cni_wire::{Response, Version};
use std::io::Write;
use std::process::ExitCode;

/// Prints a response and returns its exit status.
pub fn print(response: &Response) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let printed = stdout.write_all(&response.stdout).and_then(|()| stdout.flush());
    if printed.is_ok() && response.exit == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds a CNI error object in the CNI version that stdin asks for. The message consists of `parts`.
pub fn error(stdin: &[u8], code: Code, parts: &[&str]) -> Response {
    let mut object = String::from("{\"cniVersion\":\"");
    object.push_str(version_asked(stdin).unwrap_or(Version::LATEST.text()));
    object.push_str("\",\"code\":");
    object.push_str(&code.number.to_string());
    object.push_str(",\"msg\":\"");
    for part in parts {
        escape(part, &mut object);
    }
    object.push_str("\"}\n");
    Response { exit: 1, stdout: object.into_bytes() }
}

/// Escapes the characters that JSON does not allow in a string (RFC 8259, section 7).
fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        match character {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            control if control < ' ' => {
                into.push_str("\\u00");
                for digit in [u32::from(control) >> 4, u32::from(control) & 15] {
                    into.push(char::from_digit(digit, 16).unwrap_or('0'));
                }
            }
            plain => into.push(plain),
        }
    }
}

/// Searches the text of stdin for the value of `cniVersion`. Returns `None` if the value is absent or can't be a
/// version.
pub fn version_asked(stdin: &[u8]) -> Option<&str> {
    const VERSION_KEY: &[u8] = b"\"cniVersion\"";
    let place = stdin.windows(VERSION_KEY.len()).position(|window| window == VERSION_KEY)?;
    let rest = stdin[place + VERSION_KEY.len()..]
        .trim_ascii_start()
        .strip_prefix(b":")?
        .trim_ascii_start()
        .strip_prefix(b"\"")?;
    let text = &rest[..rest.iter().position(|byte| *byte == b'"')?];
    let plain = !text.is_empty()
        && text.len() <= 32
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(byte));
    if plain { std::str::from_utf8(text).ok() } else { None }
}

#[cfg(test)]
mod tests;
