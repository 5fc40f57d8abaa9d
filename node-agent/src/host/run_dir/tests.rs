//! Tests the run directory with two agents, and with the checkpoint of another node. Also tests it after a crash, and after changes by
//! another program.

use std::os::fd::AsRawFd;

use bobbin_ipam::BootTime;
use tokio_util::sync::CancellationToken;

use super::*;

/// A time in which the heartbeat saves the identity three times: at the start, after one interval, and after two intervals.
const TIME_OF_THREE_SAVES: Duration = heartbeat::HEARTBEAT_INTERVAL.saturating_mul(5).checked_div(2).unwrap();

fn identity(node_name: &str, uid: &str) -> Identity {
    Identity {
        node_name: node_name.to_owned(),
        node_uid: Some(uid.to_owned()),
        boot_id: "b1".to_owned(),
        heartbeat: BootTime(Duration::from_secs(5)),
        last_contact: None,
    }
}

/// Creates a checkpoint whose agent has ended.
async fn checkpoint(path: &Path, identity: &Identity) {
    let (run_dir, _) = RunDir::lock(path, &identity.node_name, None).await.unwrap();
    run_dir.save(identity).unwrap();
    fs::create_dir(path.join("attachments")).unwrap();
    fs::write(path.join("attachments/c1-eth0.json"), b"{}").unwrap();
    fs::write(path.join("ready"), b"").unwrap();
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_new_directory_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/bobbin");
    let (run_dir, previous) = RunDir::lock(&path, "n1", None).await.unwrap();
    assert_eq!(previous, Previous::Nothing);
    run_dir.save(&identity("n1", "u1")).unwrap();
    assert_eq!(names(&path), ["agent.json", "lock"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_agent_waits_until_the_first_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = RunDir::lock(dir.path(), "n1", Some("bobbin-agent-abc")).await.unwrap();
    let mut second = std::pin::pin!(RunDir::lock(dir.path(), "n1", None));
    assert!(
        tokio::time::timeout(REMINDER_INTERVAL * 5, &mut second).await.is_err(),
        "the second agent got the run directory while the first agent had it"
    );
    let Tried::Held(holder) = Lock::try_take(&dir.path().join(LOCK), None).unwrap() else {
        panic!("a third agent could lock the run directory while the first agent had it")
    };
    assert_eq!(holder.to_string(), format!("pod bobbin-agent-abc, process {}", std::process::id()));
    drop(first);
    second.await.unwrap();
}

#[tokio::test]
async fn the_checkpoint_of_the_same_node_is_kept_and_told_with_its_uid() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path(), &identity("n1", "u1")).await;
    let (_run_dir, previous) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
    assert_eq!(previous, Previous::SameNode(identity("n1", "u1")));
    assert_eq!(names(dir.path()), ["agent.json", "attachments", "lock", "ready"]);
}

#[tokio::test]
async fn the_checkpoint_of_another_node_is_set_aside_whole_and_more_than_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(SOCKET), b"").unwrap();
    for (number, node, next) in [(1, "n1", "n2"), (1, "n2", "n1"), (2, "n1", "n2")] {
        checkpoint(dir.path(), &identity(node, "u1")).await;
        let (run_dir, previous) = RunDir::lock(dir.path(), next, None).await.unwrap();
        let quarantine = dir.path().join(format!("other-node-{node}-{number}"));
        assert_eq!(previous, Previous::OtherNode { name: node.to_owned(), quarantine: quarantine.clone() });
        assert_eq!(names(&quarantine), ["agent.json", "attachments", "ready"]);
        assert_eq!(names(&quarantine.join("attachments")), ["c1-eth0.json"]);
        assert!(quarantine::content(dir.path()).unwrap().is_empty());
        assert!(run_dir.socket().exists(), "the socket must stay in the run directory");
    }
}

#[tokio::test]
async fn a_move_that_a_crash_interrupted_is_finished_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path(), &identity("n1", "u1")).await;
    fs::create_dir(dir.path().join("other-node-n1-1")).unwrap();
    fs::rename(dir.path().join("ready"), dir.path().join("other-node-n1-1/ready")).unwrap();
    let (_run_dir, previous) = RunDir::lock(dir.path(), "n2", None).await.unwrap();
    let quarantine = dir.path().join("other-node-n1-2");
    assert_eq!(previous, Previous::OtherNode { name: "n1".to_owned(), quarantine: quarantine.clone() });
    assert_eq!(names(&quarantine), ["agent.json", "attachments"]);
}

#[tokio::test]
async fn a_strange_name_in_the_identity_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let strange = format!("../../{}", "x".repeat(400));
    checkpoint(dir.path(), &identity(&strange, "u1")).await;
    let (_run_dir, previous) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
    let Previous::OtherNode { quarantine, .. } = previous else { panic!("{previous:?}") };
    assert_eq!(quarantine.parent(), Some(dir.path()));
}

#[tokio::test]
async fn a_checkpoint_whose_identity_is_unreadable_or_missing_is_kept_and_counts_as_in_use() {
    for identity_file in [Some(&b"{\"nodeName\":"[..]), None] {
        let dir = tempfile::tempdir().unwrap();
        checkpoint(dir.path(), &identity("n1", "u1")).await;
        match identity_file {
            Some(bytes) => fs::write(dir.path().join(IDENTITY), bytes).unwrap(),
            None => fs::remove_file(dir.path().join(IDENTITY)).unwrap(),
        }
        let (_run_dir, previous) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
        assert_eq!(previous, Previous::Unknown);
        assert!(dir.path().join("attachments/c1-eth0.json").exists());
    }
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(dir.path(), &identity("n1", "u1")).await;
    fs::write(dir.path().join(".bobbin-half.tmp"), b"{").unwrap();
    RunDir::lock(dir.path(), "n1", None).await.unwrap();
    assert!(!dir.path().join(".bobbin-half.tmp").exists());
}

#[tokio::test]
async fn a_lock_file_that_was_removed_is_locked_anew_unless_another_agent_was_quicker() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bobbin");
    let (first, _) = RunDir::lock(&path, "n1", None).await.unwrap();
    assert!(!first.keep_lock().unwrap());
    fs::remove_dir_all(&path).unwrap();
    assert!(first.keep_lock().unwrap());
    assert!(matches!(Lock::try_take(&path.join(LOCK), None).unwrap(), Tried::Held(_)));
    fs::remove_file(path.join(LOCK)).unwrap();
    let (_second, _) = RunDir::lock(&path, "n1", Some("other")).await.unwrap();
    let message = first.keep_lock().unwrap_err().to_string();
    assert!(message.contains("pod other") && message.contains(&path.display().to_string()), "{message}");
}

#[tokio::test]
async fn a_directory_that_can_not_be_written_is_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let message = RunDir::lock(&file.join("run"), "n1", None).await.unwrap_err().to_string();
    assert!(message.contains(&file.display().to_string()) && message.contains("--run-dir"), "{message}");
    fs::create_dir(dir.path().join(LOCK)).unwrap();
    let message = RunDir::lock(dir.path(), "n1", None).await.unwrap_err().to_string();
    assert!(message.contains("could not be locked") && message.contains("Mount the directory writable"), "{message}");
}

#[tokio::test]
async fn a_node_that_is_left_keeps_no_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (run_dir, _) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
    run_dir.save(&identity("n1", "u1")).unwrap();
    run_dir.forget().unwrap();
    run_dir.save(&identity("n1", "u1")).unwrap();
    drop(run_dir);
    assert_eq!(RunDir::lock(dir.path(), "n2", None).await.unwrap().1, Previous::Nothing);
}

#[tokio::test(start_paused = true)]
async fn the_heartbeat_keeps_the_identity_current_and_ends_the_agent_when_another_took_over() {
    let dir = tempfile::tempdir().unwrap();
    let (run_dir, _) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
    let watchdog = bobbin_observability::Watchdog::default();
    let beat = watchdog.register("heartbeat", heartbeat::HEARTBEAT_DEADLINE);
    let begun = Instant::now();
    let now = || Identity { heartbeat: BootTime(begun.elapsed()), ..identity("n1", "u1") };
    let (invalidate, invalidations) = tokio::sync::watch::channel(0);
    let mut running = std::pin::pin!(heartbeat::run(
        &run_dir,
        now,
        tokio::sync::watch::channel(false).1,
        invalidations,
        beat,
        CancellationToken::new()
    ));
    let written = || -> Identity { serde_json::from_slice(&fs::read(dir.path().join(IDENTITY)).unwrap()).unwrap() };
    assert!(tokio::time::timeout(TIME_OF_THREE_SAVES, &mut running).await.is_err());
    assert_eq!(written().heartbeat, BootTime(heartbeat::HEARTBEAT_INTERVAL * 2));
    invalidate.send(1).unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, &mut running).await.is_err());
    assert_eq!(written().heartbeat, BootTime(TIME_OF_THREE_SAVES), "an invalidation is saved at once");
    fs::remove_file(dir.path().join(LOCK)).unwrap();
    let (_other, _) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
    let ended = tokio::time::timeout(TIME_OF_THREE_SAVES, &mut running).await.unwrap();
    assert!(matches!(ended, Err(RunDirError::TakenOver { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_directory_that_was_removed_under_its_mount_ends_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    // An open file descriptor still refers to a removed directory, as a mount does.
    let held = fs::File::open(dir.path()).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    let (run_dir, _) = RunDir::lock(&path, "n1", None).await.unwrap();
    run_dir.keep_lock().unwrap();
    drop(dir);
    assert!(matches!(run_dir.keep_lock(), Err(RunDirError::Removed { .. })));
}

#[tokio::test]
async fn a_ready_marker_that_is_removed_is_made_again_unless_the_node_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (run_dir, _) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
    let marker = dir.path().join(READY_MARKER);
    run_dir.keep_marker().unwrap();
    assert!(!run_dir.was_ready() && !marker.exists());
    run_dir.mark_ready().unwrap();
    assert!(run_dir.was_ready() && marker.exists());
    fs::remove_file(&marker).unwrap();
    assert!(run_dir.was_ready(), "the agent must count as ready, although its marker was removed");
    run_dir.keep_marker().unwrap();
    assert!(marker.exists());
    run_dir.forget().unwrap();
    run_dir.keep_marker().unwrap();
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_restarted_agent_was_ready_if_the_marker_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
    first.mark_ready().unwrap();
    drop(first);
    let (second, _) = RunDir::lock(dir.path(), "n1", None).await.unwrap();
    assert!(second.was_ready());
}
