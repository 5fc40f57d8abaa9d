//! Tests the endpoints with a probe, and tests a server whose port is in use.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UnixListener;

use super::*;
use crate::probe::{ProbeError, probe};

fn server(watchdog: &Watchdog, ready: Result<(), String>) -> Server {
    let watchdog = watchdog.clone();
    Server::new(Arc::default(), Arc::new(move || Health::of(&watchdog, ready.clone())))
}

#[tokio::test]
async fn healthz_names_a_hanging_loop_and_readyz_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("health.sock");
    let watchdog = Watchdog::default();
    let beat = watchdog.register("repair", Duration::ZERO);
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(server(&watchdog, Err("no Node yet".to_owned())).serve(listener, std::future::pending()));
    let ask = |path: &'static str| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || probe(&socket, path))
    };
    let Err(ProbeError::Unhealthy(why)) = ask("/readyz").await.unwrap() else {
        panic!("/readyz says that the program is ready")
    };
    assert_eq!(why, "503: no Node yet");
    tokio::time::sleep(Duration::from_millis(2)).await;
    let Err(ProbeError::Unhealthy(why)) = ask("/healthz").await.unwrap() else {
        panic!("/healthz does not see the hanging loop")
    };
    assert!(why.starts_with("503: loop \"repair\" has made no progress"), "{why}");
    drop(beat);
    ask("/healthz").await.unwrap().unwrap();
    ask("/metrics").await.unwrap().unwrap();
}

#[tokio::test]
async fn a_document_is_served_at_its_own_path_only() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("health.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = server(&Watchdog::default(), Ok(())).with_json("/status", Arc::new(|| "{}".to_owned()));
    tokio::spawn(server.serve(listener, std::future::pending()));
    let ask = |path: &'static str| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || probe(&socket, path))
    };
    ask("/status").await.unwrap().unwrap();
    ask("/healthz").await.unwrap().unwrap();
    let Err(ProbeError::Unhealthy(why)) = ask("/other").await.unwrap() else { panic!("another path has an answer") };
    assert!(why.starts_with("404"), "{why}");
}

#[test]
fn probing_an_absent_program_fails() {
    let dir = tempfile::tempdir().unwrap();
    let told = probe(&dir.path().join("health.sock"), "/healthz").unwrap_err().to_string();
    assert!(told.contains("health.sock does not answer"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_port_in_use_is_reported_once_and_bound_when_it_is_free() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let serving = tokio::spawn(server(&Watchdog::default(), Ok(())).serve_at(
        address,
        move |error| {
            assert!(error.to_string().contains("--metrics-address"), "{error}");
            count.fetch_add(1, Ordering::Relaxed);
        },
        std::future::pending(),
    ));
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(told.load(Ordering::Relaxed), 1);
    drop(other);
    tokio::time::sleep(MAX_RETRY_INTERVAL).await;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    serving.abort();
}
