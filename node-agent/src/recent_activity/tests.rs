//! Tests that the lists of recent activity are bounded, and that the texts contain no data of the runtime's call.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn fail(recent: &RecentActivity, verb: Verb, code: code::Code, text: &str) {
    let key = AttachmentKey::new("c", "eth0");
    recent.call_failed(verb, &key, PodRef::default(), &CniError::new(code, text.to_owned()), at(1));
}

#[test]
fn only_the_last_errors_of_add_and_del_are_kept() {
    let recent = RecentActivity::default();
    fail(&recent, Verb::Check, code::CHECK_FAILED, "not this");
    for number in 0..MAX_ERRORS + 5 {
        fail(&recent, if number % 2 == 0 { Verb::Add } else { Verb::Del }, code::TRY_AGAIN_LATER, &number.to_string());
    }
    let errors = recent.get().errors;
    assert_eq!(errors.len(), MAX_ERRORS);
    assert_eq!((errors[0].error.as_str(), errors[MAX_ERRORS - 1].error.as_str()), ("5", "24"));
}

#[test]
fn the_text_of_an_invalid_call_is_left_out_and_long_texts_are_cut() {
    let recent = RecentActivity::default();
    fail(&recent, Verb::Add, code::DECODING_FAILURE, "invalid type: string \"secret\"");
    fail(&recent, Verb::Add, code::INVALID_ENVIRONMENT, "TOKEN=secret");
    fail(&recent, Verb::Add, code::KERNEL_REFUSED, &"x".repeat(10_000));
    let errors = recent.get().errors;
    assert!(errors.iter().all(|one| !one.error.contains("secret") && one.error.len() <= MAX_TEXT), "{errors:?}");
}

#[test]
fn a_broken_attachment_keeps_the_time_of_its_first_finding_until_it_is_whole() {
    let recent = RecentActivity::default();
    let key = AttachmentKey::new("c", "eth0");
    recent.set_broken([key.clone()], at(1));
    recent.set_broken([key.clone()], at(2));
    assert_eq!(recent.get().broken[&key], at(1));
    recent.set_broken([], at(3));
    recent.set_broken([key.clone()], at(4));
    assert_eq!(recent.get().broken[&key], at(4));
}

#[test]
fn repairs_are_counted_and_the_last_ones_kept() {
    let recent = RecentActivity::default();
    for second in 0..30 {
        recent.reconciled(&[format!("route {second}")], &["rule".to_owned()], at(second));
    }
    let network = recent.get().network;
    assert_eq!((network.repaired, network.last_repairs.len()), (30, MAX_REPAIRS));
    assert_eq!(network.last_repairs[MAX_REPAIRS - 1].what, "route 29");
    assert_eq!(network.not_repaired, ["rule"]);
}

#[test]
fn a_failed_resync_keeps_the_time_of_the_last_success() {
    let recent = RecentActivity::default();
    recent.resync_succeeded(Duration::from_mins(1), at(10));
    recent.resync_failed("no answer", Duration::from_secs(1), at(70));
    let resync = recent.get().resync;
    assert_eq!((resync.succeeded, resync.next), (Some(at(10)), Some(at(71))));
    assert_eq!(resync.failure.map(|failure| failure.what), Some("no answer".to_owned()));
}

#[test]
fn a_problem_of_the_installation_keeps_its_time_until_it_is_gone() {
    let recent = RecentActivity::default();
    let problem = ("CNIConfigShadowed", "05-other.conf sorts first");
    recent.installed(["10-bobbin.conflist".to_owned()], [problem], at(1));
    recent.installed([], [("InstallFailed", "no space"), problem], at(2));
    let installation = recent.get().installation.unwrap();
    let since: Vec<_> = installation.problems.iter().map(|one| (one.reason.as_str(), one.since)).collect();
    assert_eq!(since, [("InstallFailed", Some(at(2))), ("CNIConfigShadowed", Some(at(1)))]);
    assert_eq!((installation.restored, installation.last_restored.and_then(|last| last.time)), (1, Some(at(1))));
    recent.installed([], [], at(3));
    recent.installed([], [problem], at(4));
    assert_eq!(recent.get().installation.unwrap().problems[0].since, Some(at(4)));
}
