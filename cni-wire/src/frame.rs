//! The format of the frames between the shim and the agent. The shim sends a CNI call in one frame, and the agent
//! answers with one frame.
//!
//! A request consists of `BOB1`, the environment and stdin. A response consists of the exit status (u8) and stdout. The
//! environment, stdin and stdout each begin with their length (u32, little-endian). The environment consists of
//! NUL-separated `KEY=VALUE` entries. If a call has a network namespace, the shim sends its file descriptor
//! (`SCM_RIGHTS`) with the first byte.

use std::fmt;

/// The first bytes of a request. The digit is the version of the frame format.
pub const MAGIC: [u8; 4] = *b"BOB1";
/// The maximum size of all environment entries together, in bytes.
pub const MAX_ENVIRONMENT: usize = 64 * 1024;
/// The maximum size of stdin and of stdout, in bytes. It is large, because the stdin of a GC lists every container of a
/// node.
pub const MAX_BODY: usize = 4 * 1024 * 1024;

/// A request: the `CNI_*` environment and the stdin of one CNI call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The names and values of the environment variables. A name contains no `=`, and neither a name nor a value
    /// contains a NUL.
    pub env: Vec<(String, String)>,
    /// The network configuration from stdin, unchanged.
    pub stdin: Vec<u8>,
}

/// The answer to a request: the exit status and the output of the shim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The exit status of the shim: 0 or 1.
    pub exit: u8,
    /// The output of the shim: a result or an error object, or nothing.
    pub stdout: Vec<u8>,
}

/// Why the bytes are not a frame, or why a call does not fit into a frame. A retry would fail in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The first bytes are not `BOB1`, because the sender is another program or a shim of another version.
    Magic,
    /// A length field in the frame is above its limit.
    TooLong,
    /// The bytes end before the end of the frame.
    Short,
    /// There are bytes after the end of the frame.
    Trailing,
    /// An environment entry is not UTF-8, has no `=`, has a `=` in its name, or contains a NUL.
    Environment,
    /// The exit status is neither 0 nor 1.
    Exit,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::Magic => {
                "the bytes do not begin with BOB1, so the sender is not a CNI plugin of the agent's version"
            }
            FrameError::TooLong => "the environment, stdin or stdout in the frame is longer than allowed",
            FrameError::Short => "the bytes end before the end of the frame",
            FrameError::Trailing => "unexpected bytes follow the end of the frame",
            FrameError::Environment => "an environment entry is not KEY=VALUE in UTF-8",
            FrameError::Exit => "the exit status is neither 0 nor 1",
        })
    }
}

impl std::error::Error for FrameError {}

impl Request {
    /// Encodes the request.
    ///
    /// # Errors
    /// Fails with `TooLong` or `Environment` if the request does not fit into a frame.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut environment = Vec::new();
        for (place, (name, value)) in self.env.iter().enumerate() {
            if name.contains(['=', '\0']) || value.contains('\0') {
                return Err(FrameError::Environment);
            }
            if place > 0 {
                environment.push(0);
            }
            environment.extend_from_slice(name.as_bytes());
            environment.push(b'=');
            environment.extend_from_slice(value.as_bytes());
        }
        let mut frame = Vec::with_capacity(12 + environment.len() + self.stdin.len());
        frame.extend_from_slice(&MAGIC);
        push_part(&mut frame, &environment, MAX_ENVIRONMENT)?;
        push_part(&mut frame, &self.stdin, MAX_BODY)?;
        Ok(frame)
    }

    /// The length that the frame has at least, as far as the received `bytes` show. If `bytes` has this length, the
    /// frame is complete.
    ///
    /// # Errors
    /// Fails with `Magic` or `TooLong` as soon as `bytes` shows that error.
    pub fn needed(bytes: &[u8]) -> Result<usize, FrameError> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(FrameError::Magic);
        }
        let Some(environment) = length_at(bytes, 4, MAX_ENVIRONMENT)? else {
            return Ok(8);
        };
        Ok(match length_at(bytes, 8 + environment, MAX_BODY)? {
            Some(stdin) => 12 + environment + stdin,
            None => 12 + environment,
        })
    }

    /// Decodes a complete request frame.
    ///
    /// # Errors
    /// Fails with any `FrameError` except `Exit`.
    pub fn decode(bytes: &[u8]) -> Result<Request, FrameError> {
        let needed = Request::needed(bytes)?;
        whole(bytes, needed)?;
        let environment = length_at(bytes, 4, MAX_ENVIRONMENT)?.ok_or(FrameError::Short)?;
        let text = std::str::from_utf8(&bytes[8..8 + environment]).map_err(|_| FrameError::Environment)?;
        let mut env = Vec::new();
        if !text.is_empty() {
            for entry in text.split('\0') {
                let (name, value) = entry.split_once('=').ok_or(FrameError::Environment)?;
                env.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(Request { env, stdin: bytes[12 + environment..].to_vec() })
    }

    /// The value of the first environment entry that has this name.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Response {
    /// Encodes the response.
    ///
    /// # Errors
    /// Fails with `TooLong` or `Exit` if the response does not fit into a frame.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        if self.exit > 1 {
            return Err(FrameError::Exit);
        }
        let mut frame = Vec::with_capacity(5 + self.stdout.len());
        frame.push(self.exit);
        push_part(&mut frame, &self.stdout, MAX_BODY)?;
        Ok(frame)
    }

    /// The length that the frame has at least, as far as the received `bytes` show. If `bytes` has this length, the
    /// frame is complete.
    ///
    /// # Errors
    /// Fails with `Exit` or `TooLong` as soon as `bytes` shows that error.
    pub fn needed(bytes: &[u8]) -> Result<usize, FrameError> {
        if bytes.first().is_some_and(|exit| *exit > 1) {
            return Err(FrameError::Exit);
        }
        Ok(5 + length_at(bytes, 1, MAX_BODY)?.unwrap_or(0))
    }

    /// Decodes a complete response frame.
    ///
    /// # Errors
    /// Fails with `Exit`, `TooLong`, `Short` or `Trailing`.
    pub fn decode(bytes: &[u8]) -> Result<Response, FrameError> {
        let needed = Response::needed(bytes)?;
        whole(bytes, needed)?;
        Ok(Response { exit: bytes[0], stdout: bytes[5..].to_vec() })
    }
}

fn push_part(frame: &mut Vec<u8>, part: &[u8], limit: usize) -> Result<(), FrameError> {
    if part.len() > limit {
        return Err(FrameError::TooLong);
    }
    frame.extend_from_slice(&(part.len() as u32).to_le_bytes());
    frame.extend_from_slice(part);
    Ok(())
}

/// The value of the length field at `place`. `None` if `bytes` ends before the end of the field.
fn length_at(bytes: &[u8], place: usize, limit: usize) -> Result<Option<usize>, FrameError> {
    let Some(field) = bytes.get(place..place + 4).and_then(|field| <[u8; 4]>::try_from(field).ok()) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(field) as usize;
    if length > limit { Err(FrameError::TooLong) } else { Ok(Some(length)) }
}

fn whole(bytes: &[u8], needed: usize) -> Result<(), FrameError> {
    match bytes.len().cmp(&needed) {
        std::cmp::Ordering::Less => Err(FrameError::Short),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(FrameError::Trailing),
    }
}

#[cfg(test)]
mod tests;
