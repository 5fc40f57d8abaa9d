//! Accepts TCP connections, performs their TLS handshakes, and lets a fault reset a single connection.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener that accepts TCP connections and returns them after their TLS handshake.
pub(super) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
}

impl TlsListener {
    /// Starts the listener. Each TLS handshake runs in a separate task, so that a hanging handshake delays no other
    /// handshake.
    pub(super) fn on(tcp: TcpListener, tls: TlsAcceptor) -> Result<Self> {
        let (sender, ready) = mpsc::channel(1);
        let address = tcp.local_addr()?;
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = tcp.accept() => accepted,
                    () = sender.closed() => return,
                };
                let Ok((stream, from)) = accepted else { continue };
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                        // Ignore a failure, because sending a connection fails only after the proxy has ended.
                        let _ = sender.send((Connection { stream, reset: Reset::default() }, from)).await;
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// Resets one connection. The client sees a TCP reset and gets no byte of an answer. All clones reset the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Reset(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_due: AtomicBool,
    waker: AtomicWaker,
}

impl Reset {
    /// Resets the connection. This function never returns: the server drops the connection together with the future
    /// that waits for this function.
    pub(super) async fn now<T>(&self) -> T {
        self.0.is_due.store(true, Ordering::Release);
        self.0.waker.wake();
        std::future::pending().await
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Reset {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.io().reset.clone()
    }
}

/// One accepted connection.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    reset: Reset,
}

impl Connection {
    /// Fails if the connection must be reset. The server then drops the connection. The linger time of the connection
    /// is zero, so the kernel sends a reset.
    fn check(&self) -> std::io::Result<()> {
        if !self.reset.0.is_due.load(Ordering::Acquire) {
            return Ok(());
        }
        self.stream.get_ref().0.set_zero_linger()?;
        Err(std::io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        // Register the reading task, so that a reset wakes it. A task reads even while the server waits for an answer,
        // because the server must notice when the client closes the connection.
        self.reset.0.waker.register(context.waker());
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
