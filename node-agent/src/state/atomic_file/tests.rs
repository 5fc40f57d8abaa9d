//! Tests crashes at each step of a write. The tests check the files that a crash leaves behind, and the next start.

use super::*;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_file_is_replaced_with_its_mode_and_no_temporary_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.json");
    for (bytes, mode_wanted) in [(&b"one"[..], 0o644), (b"two", 0o600), (b"three", 0o755)] {
        replace(&path, bytes, mode_wanted).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (bytes.to_vec(), mode_wanted));
    }
    replace_durably(&path, b"four", 0o644).unwrap();
    assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"four".to_vec(), 0o644));
    assert_eq!(names(dir.path()), ["agent.json"]);
}

/// Simulates a writer that was killed, so its destructor does not run.
fn crash<T>(writer: T) {
    std::mem::forget(writer);
}

#[test]
fn after_a_crash_before_the_rename_the_old_file_stays_and_the_next_start_removes_the_temporary_one() {
    let crashes: [fn(&Path); 3] = [
        |path| crash(Pending::create(path, 0o644).unwrap()),
        |path| {
            let mut half = Pending::create(path, 0o644).unwrap();
            half.file.as_file_mut().write_all(b"ne").unwrap();
            crash(half);
        },
        |path| crash(Pending::create(path, 0o644).unwrap().fill(b"new").unwrap()),
    ];
    for crashed in crashes {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-bobbin.conflist");
        replace(&path, b"old", 0o644).unwrap();
        crashed(&path);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let temporary = names(dir.path()).into_iter().find(|name| is_temporary(name)).unwrap();
        assert_eq!(
            Path::new(&temporary).extension().unwrap(),
            "tmp",
            "the temporary file has an extension that other programs read, such as json or conflist"
        );
        tidy(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["10-bobbin.conflist"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}

#[test]
fn after_a_crash_behind_the_rename_only_the_new_file_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.json");
    replace(&path, b"old", 0o644).unwrap();
    Pending::create(&path, 0o644).unwrap().fill(b"new").unwrap().commit().unwrap();
    tidy(dir.path()).unwrap();
    assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"new".to_vec(), vec!["agent.json".to_owned()]));
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_temporary_one() {
    let dir = tempfile::tempdir().unwrap();
    // The rename fails, because a rename can't replace a directory by a file.
    let path = dir.path().join("directory");
    fs::create_dir_all(path.join("inner")).unwrap();
    assert!(replace(&path, b"new", 0o644).is_err());
    assert_eq!(names(dir.path()), ["directory"]);
    assert!(replace_durably(&dir.path().join("nowhere/file"), b"new", 0o644).is_err());
}

#[test]
fn a_removed_directory_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone/file");
    replace(&path, b"new", 0o644).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn files_of_other_programs_are_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    for name in [".bobbin-notes", "x.tmp", "bobbin-1.tmp", "10-calico.conflist"] {
        fs::write(dir.path().join(name), b"").unwrap();
    }
    tidy(dir.path()).unwrap();
    assert_eq!(names(dir.path()).len(), 4);
}

#[test]
fn removing_a_missing_file_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    assert!(!remove(&path).unwrap());
    replace(&path, b"", 0o644).unwrap();
    assert!(remove(&path).unwrap());
}
