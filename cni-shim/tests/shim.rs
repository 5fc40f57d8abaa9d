//! Runs the shim in the same way as a container runtime. The tests play the agent, and check the shim's request and
//! output.

#![allow(clippy::unwrap_used, reason = "a test")]

use bobbin_cni_wire::{Request, Response};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{IoSliceMut, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Ran {
    exit: i32,
    stdout: String,
}

impl Ran {
    fn error(&self) -> serde_json::Value {
        assert_eq!(self.exit, 1, "{}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn shim(run: &Path, env: &[(&str, &str)], stdin: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bobbin"))
        .env_clear()
        .env("BOBBIN_SOCKET", run.join("agent.sock"))
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // If stdin is too long, the write may fail, because the shim may end before it has read all of stdin.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Ran { exit: output.status.code().unwrap(), stdout: String::from_utf8(output.stdout).unwrap() }
}

/// Plays the agent for one call and answers with `reply`. Returns the request. If the shim sent a namespace's file
/// descriptor, also returns the inode of the namespace.
fn agent(
    run: &Path,
    reply: impl FnOnce(UnixStream) + Send + 'static,
) -> std::thread::JoinHandle<(Request, Option<u64>)> {
    let listener = UnixListener::bind(run.join("agent.sock")).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (mut bytes, mut inode) = (Vec::new(), None);
        while bytes.len() < Request::needed(&bytes).unwrap() {
            let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
            let mut buffer = vec![0; 65536];
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let message =
                recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
            for control in message.cmsgs().unwrap() {
                if let ControlMessageOwned::ScmRights(descriptors) = control {
                    let path = format!("/proc/self/fd/{}", descriptors[0]);
                    inode = Some(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap()));
                }
            }
            let count = message.bytes;
            assert!(count > 0, "the shim closed the connection early");
            bytes.extend_from_slice(&buffer[..count]);
        }
        reply(stream);
        (Request::decode(&bytes).unwrap(), inode)
    })
}

fn answering(exit: u8, stdout: &[u8]) -> impl FnOnce(UnixStream) + Send + 'static {
    let frame = Response { exit, stdout: stdout.to_vec() }.encode().unwrap();
    move |mut stream| stream.write_all(&frame).unwrap()
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

const CONF: &[u8] = br#"{"cniVersion":"1.0.0","name":"bobbin","type":"bobbin"}"#;

#[test]
fn an_add_is_sent_with_its_namespace_and_the_answer_is_printed_unchanged() {
    let run = TempDir::new().unwrap();
    let netns = run.path().join("netns");
    std::fs::write(&netns, "").unwrap();
    let agent = agent(run.path(), answering(0, b"{\"ips\": [] }\n"));
    let env =
        [("CNI_COMMAND", "ADD"), ("CNI_NETNS", netns.to_str().unwrap()), ("CNI_ARGS", "A=1;B=2"), ("PATH", "/bin")];
    let ran = shim(run.path(), &env, CONF);
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, "{\"ips\": [] }\n"));
    let (request, descriptor) = agent.join().unwrap();
    assert_eq!(request.stdin, CONF);
    assert_eq!(request.variable("CNI_ARGS"), Some("A=1;B=2"));
    assert_eq!(request.variable("PATH"), None);
    assert_eq!(descriptor, Some(inode(&netns)));
}

#[test]
fn a_long_stdin_and_a_long_answer_are_passed_completely() {
    let run = TempDir::new().unwrap();
    let stdin = [CONF, &vec![b' '; 1_000_000]].concat();
    let agent = agent(run.path(), answering(1, &vec![b'x'; 1_000_000]));
    let ran = shim(run.path(), &[("CNI_COMMAND", "GC")], &stdin);
    assert_eq!((ran.exit, ran.stdout.len()), (1, 1_000_000));
    assert_eq!(agent.join().unwrap().0.stdin, stdin);
}

#[test]
fn a_del_continues_when_the_namespace_is_gone() {
    let run = TempDir::new().unwrap();
    for netns in ["/gone/away", ""] {
        let agent = agent(run.path(), answering(0, b""));
        let ran = shim(run.path(), &[("CNI_COMMAND", "DEL"), ("CNI_NETNS", netns)], CONF);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""));
        assert_eq!(agent.join().unwrap().1, None);
        std::fs::remove_file(run.path().join("agent.sock")).unwrap();
    }
}

#[test]
fn an_add_or_check_fails_with_the_path_when_the_namespace_is_gone() {
    let run = TempDir::new().unwrap();
    for verb in ["ADD", "CHECK"] {
        let error = shim(run.path(), &[("CNI_COMMAND", verb), ("CNI_NETNS", "/gone/away")], CONF).error();
        assert_eq!(error["code"], 3);
        assert!(error["msg"].as_str().unwrap().contains("/gone/away"), "{error}");
    }
}

#[test]
fn without_an_agent_the_error_is_try_again_later_and_never_says_not_found() {
    let run = TempDir::new().unwrap();
    for verb in ["ADD", "DEL", "CHECK", "GC"] {
        let error = shim(run.path(), &[("CNI_COMMAND", verb)], CONF).error();
        assert_eq!((&error["code"], &error["cniVersion"]), (&11.into(), &"1.0.0".into()));
        let text = error["msg"].as_str().unwrap().to_lowercase();
        assert!(text.contains("agent") && !text.contains("not found") && !text.contains("no such file"), "{text}");
    }
}

#[test]
fn a_closed_connection_or_an_invalid_answer_is_try_again_later() {
    for reply in [&b""[..], &[0, 9, 0, 0, 0, b'x'], b"HTTP/1.1 200"] {
        let run = TempDir::new().unwrap();
        let agent = agent(run.path(), move |mut stream| stream.write_all(reply).unwrap());
        let error = shim(run.path(), &[("CNI_COMMAND", "DEL")], CONF).error();
        assert_eq!(error["code"], 11);
        agent.join().unwrap();
    }
}

#[test]
fn version_needs_no_agent() {
    let run = TempDir::new().unwrap();
    for (stdin, version) in
        [(r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), (r#"{"cniVersion":"7.0.0"}"#, "1.1.0"), ("", "1.1.0")]
    {
        let ran = shim(run.path(), &[("CNI_COMMAND", "VERSION")], stdin.as_bytes());
        let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((ran.exit, answer["cniVersion"].as_str()), (0, Some(version)));
        assert_eq!(answer["supportedVersions"], serde_json::json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    }
}

#[test]
fn an_invalid_environment_or_a_too_long_stdin_is_an_error() {
    let run = TempDir::new().unwrap();
    assert_eq!(shim(run.path(), &[], b"").error()["code"], 4);
    assert_eq!(shim(run.path(), &[("CNI_COMMAND", "JU\"MP")], b"{").error()["code"], 4);
    assert_eq!(shim(run.path(), &[("CNI_COMMAND", "ADD")], &vec![b' '; 5 << 20]).error()["code"], 5);
    let long = "a".repeat(70_000);
    assert_eq!(shim(run.path(), &[("CNI_COMMAND", "ADD"), ("CNI_ARGS", &long)], CONF).error()["code"], 4);
}

#[test]
fn status_fails_only_until_the_agent_has_been_ready_since_boot_and_creates_no_file() {
    let run = TempDir::new().unwrap();
    let status = || shim(run.path(), &[("CNI_COMMAND", "STATUS")], CONF);
    let error = status().error();
    assert_eq!(error["code"], 50);
    assert!(error["msg"].as_str().unwrap().contains("has not been ready since this node booted"), "{error}");
    std::fs::write(run.path().join("ready"), "").unwrap();
    for _ in 0..2 {
        assert_eq!((status().exit, status().stdout.as_str()), (0, ""));
    }
    assert_eq!(std::fs::read_dir(run.path()).unwrap().count(), 1);
    // If the agent answers STATUS, the shim prints the agent's answer even if the ready marker exists.
    let agent = agent(run.path(), answering(1, b"{\"code\":50}"));
    assert_eq!(status().error()["code"], 50);
    agent.join().unwrap();
    assert_eq!(status().exit, 0, "STATUS failed although the agent has been ready since boot");
}

#[test]
fn status_answers_within_a_second_when_the_agent_is_silent() {
    let run = TempDir::new().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let agent = agent(run.path(), move |_stream| stopped.recv().unwrap());
    let start = Instant::now();
    let error = shim(run.path(), &[("CNI_COMMAND", "STATUS")], CONF).error();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(error["code"], 50);
    stop.send(()).unwrap();
    agent.join().unwrap();
}
