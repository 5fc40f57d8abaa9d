//! Starts the executable to test its command line, and its check of environment variables.

use std::process::{Command, Output};

fn bobbin_all(args: &[&str], variable: Option<(&str, &str)>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bobbin-all"));
    command.args(args).env_clear().envs(variable);
    command.output().expect("the executable starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_program_does_not_start_with_an_environment_variable_of_an_earlier_version() {
    let agent = ["agent", "--node-name=n1", "--run-dir=/nonexistent"];
    let refused = [
        (&["operator"][..], ("BOBBIN_NODE_GONE_SECONDS", "300"), "set BOBBIN_NODE_GRACE_PERIOD instead"),
        (&agent[..], ("BOBBIN_HOLD_ADD", "30s"), "set BOBBIN_ADD_TIMEOUT instead"),
    ];
    for (args, variable, expected) in refused {
        let output = bobbin_all(args, Some(variable));
        assert!(!output.status.success(), "{args:?} with {variable:?}");
        let stderr = stderr(&output);
        assert!(stderr.contains(variable.0) && stderr.contains(expected), "{args:?} with {variable:?}: {stderr}");
    }
}

#[test]
fn help_and_version_are_answered_and_an_unknown_program_is_refused() {
    let help = bobbin_all(&["--help"], None);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("bobbin-all probe <socket> <path>"));
    let version = bobbin_all(&["--version"], None);
    assert_eq!(String::from_utf8_lossy(&version.stdout), concat!("bobbin ", env!("CARGO_PKG_VERSION"), "\n"));
    let unknown = bobbin_all(&["router"], None);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("\"router\" is not a program of Bobbin"), "{}", stderr(&unknown));
}
