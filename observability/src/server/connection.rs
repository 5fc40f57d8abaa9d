//! Ends old connections. Otherwise, clients that never read could make the program keep many answers in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a connection may stay open. A client that needs more time opens another connection.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30);

/// A listener whose connections end after [`MAX_CONNECTION_AGE`].
pub(super) struct AgingListener<L>(pub(super) L);

impl<L: Listener> Listener for AgingListener<L> {
    type Io = AgingConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = self.0.accept().await;
        (AgingConnection { stream, end: Box::pin(sleep(MAX_CONNECTION_AGE)) }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection whose reads and writes fail after [`MAX_CONNECTION_AGE`].
pub(super) struct AgingConnection<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
}

impl<S> AgingConnection<S> {
    fn check_age(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AgingConnection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_age(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AgingConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_age(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_age(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_age(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_it_is_old() {
        let (mut client, server) = duplex(8);
        let mut server = AgingConnection { stream: server, end: Box::pin(sleep(MAX_CONNECTION_AGE)) };
        client.write_all(b"hello").await.expect("the connection is open");
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).await.expect("the connection is young");
        // The client reads nothing, so the write fills the buffer and waits.
        let why = server.write_all(&[0; 64]).await.expect_err("the client never reads");
        assert_eq!(why.kind(), io::ErrorKind::TimedOut);
        assert_eq!(server.read(&mut bytes).await.expect_err("it is old").kind(), io::ErrorKind::TimedOut);
    }
}
