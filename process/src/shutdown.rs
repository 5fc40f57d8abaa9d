//! Stops a program on SIGTERM or SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// On SIGTERM or SIGINT, logs `message` and cancels the returned token. Must be called inside the tokio runtime.
///
/// # Errors
/// Fails if the signal handlers can't be registered.
pub fn shutdown_on_signal(message: &'static str) -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let signalled = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("{message}");
        signalled.cancel();
    });
    Ok(shutdown)
}
