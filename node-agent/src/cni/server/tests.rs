//! Tests the agent's socket with calls in the format of the CNI plugin.

use std::io::{IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as Shim;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::*;

/// A call whose stdin is so large that the agent must read more than once from the socket.
fn call() -> Request {
    Request { env: vec![("CNI_COMMAND".to_owned(), "ADD".to_owned())], stdin: vec![b'x'; 100_000] }
}

async fn received(
    path: PathBuf,
    shim: impl FnOnce(Shim, &[u8]) + Send + 'static,
) -> io::Result<(Request, Option<OwnedFd>)> {
    let listener = Socket::bind(&path).unwrap().listener;
    let frame = call().encode().unwrap();
    let shim = std::thread::spawn(move || shim(Shim::connect(&path).unwrap(), &frame));
    let (mut stream, _) = listener.accept().await.unwrap();
    let result = with_timeout(IO_TIMEOUT, receive(&mut stream)).await;
    drop(stream);
    shim.join().unwrap();
    result
}

#[tokio::test]
async fn a_large_call_arrives_with_its_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let (request, netns) = received(dir.path().join("agent.sock"), |mut shim, frame| {
        let own = std::fs::File::open("/proc/self/ns/net").unwrap();
        let rights = [own.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&rights)];
        let sent = sendmsg::<()>(shim.as_raw_fd(), &[IoSlice::new(&frame[..5])], &control, MsgFlags::empty(), None);
        shim.write_all(&frame[sent.unwrap()..]).unwrap();
    })
    .await
    .unwrap();
    assert_eq!(request, call());
    assert!(bobbin_datapath::is_own_netns(netns.unwrap()).unwrap());
}

#[tokio::test]
async fn a_call_without_a_namespace_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let shim = |mut shim: Shim, frame: &[u8]| shim.write_all(frame).unwrap();
    let (request, netns) = received(dir.path().join("agent.sock"), shim).await.unwrap();
    assert_eq!(request, call());
    assert!(netns.is_none());
}

#[tokio::test]
async fn a_truncated_call_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let shim = |mut shim: Shim, frame: &[u8]| shim.write_all(&frame[..frame.len() / 2]).unwrap();
    assert!(received(dir.path().join("agent.sock"), shim).await.is_err());
}

#[tokio::test]
async fn malformed_bytes_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // The agent closes the connection early, so this write may fail.
    let shim = |mut shim: Shim, _: &[u8]| drop(shim.write_all(&[b'G'; 64]));
    let refused = received(dir.path().join("agent.sock"), shim).await.unwrap_err();
    assert_ne!(refused.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_only_root_may_connect() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let _socket = Socket::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Shim::connect(&path).is_ok());
}

#[tokio::test]
async fn a_file_that_is_not_a_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    std::fs::write(&path, b"mine").unwrap();
    assert!(Socket::bind(&path).unwrap_err().to_string().contains("is not a socket"));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[tokio::test]
async fn the_socket_of_another_program_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = Socket::bind(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("another program (process {})", std::process::id())), "{error}");
    drop(other);
    Socket::bind(&path).unwrap();
}

#[tokio::test]
async fn an_unwritable_directory_is_named() {
    let path = Path::new("/proc/agent.sock");
    let error = Socket::bind(path).unwrap_err().to_string();
    assert!(error.contains("/proc/agent.sock") && error.contains("must be able to write"), "{error}");
}

#[tokio::test]
async fn a_removed_or_replaced_socket_is_bound_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let mut socket = Socket::bind(&path).unwrap();
    let mut failing = false;
    for replaced in [false, true] {
        std::fs::remove_file(&path).unwrap();
        if replaced {
            std::fs::write(&path, b"mine").unwrap();
            bind_again_if_lost(&mut socket, &mut failing);
            assert!(failing, "the agent replaced a file that another program created");
            std::fs::remove_file(&path).unwrap();
        }
        bind_again_if_lost(&mut socket, &mut failing);
        assert!(!failing && socket.path.is_bound());
        assert!(Shim::connect(&path).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn probes_are_answered_again_after_their_socket_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("health.sock");
    let watchdog = bobbin_observability::Watchdog::default();
    let server = Server::new(Arc::default(), Arc::new(move || bobbin_observability::Health::of(&watchdog, Ok(()))));
    let stop = CancellationToken::new();
    let (at, until) = (path.clone(), stop.clone());
    let serving = tokio::spawn(async move { serve_probes(&at, server, until).await });
    let probed = || {
        let path = path.clone();
        async move {
            let asked = move || bobbin_observability::probe(&path, "/healthz");
            while tokio::task::spawn_blocking(asked.clone()).await.unwrap().is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), probed()).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    tokio::time::timeout(Duration::from_secs(30), probed()).await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), serving).await.unwrap().unwrap();
}
