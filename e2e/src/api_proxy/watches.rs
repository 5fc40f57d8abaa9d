//! Reads the body of a watch line by line. Forwards, drops or withholds each event.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{StreamExt, stream};
use serde_json::Value;

use super::faults::{Fault, Faults, lock};
use super::listener::Reset;
use super::request::RequestInfo;

struct Watch {
    upstream: Pin<Box<BodyDataStream>>,
    request: RequestInfo,
    faults: Arc<Faults>,
    opened: usize,
    connection: Reset,
    /// The beginning of a line whose end has not arrived yet.
    rest: Vec<u8>,
    lines: VecDeque<Vec<u8>>,
    dead: bool,
}

/// Returns the body of a watch as the client receives it.
pub(super) fn body(
    upstream: kube::client::Body,
    request: RequestInfo,
    faults: Arc<Faults>,
    opened: usize,
    connection: Reset,
) -> Body {
    let upstream = Box::pin(Body::new(upstream).into_data_stream());
    let (rest, lines) = (Vec::new(), VecDeque::new());
    let watch = Watch { upstream, request, faults, opened, connection, rest, lines, dead: false };
    Body::from_stream(stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        loop {
            while let Some(line) = self.lines.pop_front() {
                if self.passes(&line).await {
                    return Some(Ok(Bytes::from(line)));
                }
            }
            let chunk = tokio::select! {
                chunk = self.upstream.next() => chunk,
                () = self.faults.until_reset(&self.request) => self.connection.now().await,
            };
            self.die_if_frozen().await;
            match chunk {
                None => return None,
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(bytes)) => self.cut(&bytes),
            }
        }
    }

    fn cut(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.rest.push(*byte);
            if *byte == b'\n' {
                self.lines.push_back(std::mem::take(&mut self.rest));
            }
        }
    }

    async fn passes(&mut self, line: &[u8]) -> bool {
        self.die_if_frozen().await;
        let Ok(event) = serde_json::from_slice::<Value>(line) else { return true };
        let is_change = matches!(event["type"].as_str(), Some("ADDED" | "MODIFIED" | "DELETED"));
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        let info = self.request.event(name, self.faults.next_id());
        if is_change && self.faults.drops(&self.request, &info) {
            return false;
        }
        lock(&self.faults.log).add(&info, &String::from_utf8_lossy(line));
        true
    }

    /// Never returns if `Fault::Freeze` froze the watch, so the client receives nothing more, not even the end of the
    /// watch. If `Fault::FreezeThenReset` froze the watch, resets the connection when the fault ends.
    async fn die_if_frozen(&mut self) {
        self.dead |= self.faults.freezes(&self.request, self.opened, Fault::Freeze);
        if self.dead {
            std::future::pending::<()>().await;
        }
        if self.faults.was_frozen(&self.request, self.opened).await {
            self.connection.now::<()>().await;
        }
    }
}
