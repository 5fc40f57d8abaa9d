//! Tests which source selects the pool, and the message of each refusal.

use super::*;

fn pool(name: &str) -> PoolInfo<'_> {
    PoolInfo {
        name,
        ready: true,
        not_ready_why: None,
        draining: false,
        deleting: false,
        admits_namespace: true,
        admits_node: true,
    }
}

/// Looks up one of the pools `default`, `team`, `gold` and `blue`. The pod's namespace is also named `team`.
fn all(name: &str) -> Option<PoolInfo<'static>> {
    ["default", "team", "gold", "blue"].into_iter().find(|known| *known == name).map(pool)
}

fn chosen(pod: Option<&str>, annotation: Option<&str>, namespace: Option<&str>) -> (String, SelectionSource) {
    let selection = select_pool(pod, annotation, namespace, all).unwrap();
    (selection.pool, selection.source)
}

#[test]
fn pod_annotation_beats_namespace_annotation_beats_namespace_name_beats_default() {
    assert_eq!(chosen(Some("gold"), Some("blue"), Some("team")), ("gold".to_owned(), SelectionSource::PodAnnotation));
    assert_eq!(chosen(None, Some("blue"), Some("team")), ("blue".to_owned(), SelectionSource::NamespaceAnnotation));
    assert_eq!(chosen(None, None, Some("team")), ("team".to_owned(), SelectionSource::NamespaceName));
    assert_eq!(chosen(None, None, Some("other")), ("default".to_owned(), SelectionSource::Default));
    assert_eq!(chosen(None, None, Some("default")), ("default".to_owned(), SelectionSource::Default));
}

#[test]
fn an_empty_annotation_counts_as_absent() {
    assert_eq!(chosen(Some(""), Some(""), Some("team")), ("team".to_owned(), SelectionSource::NamespaceName));
    assert_eq!(chosen(Some(""), Some("blue"), Some("team")), ("blue".to_owned(), SelectionSource::NamespaceAnnotation));
}

#[test]
fn a_call_without_a_pod_gets_the_default_pool() {
    assert_eq!(chosen(None, None, None), ("default".to_owned(), SelectionSource::Default));
}

fn refused(info: impl Fn(PoolInfo<'static>) -> Option<PoolInfo<'static>>) -> String {
    select_pool(Some("gold"), None, Some("team"), |name| {
        all(name).and_then(|pool| if name == "gold" { info(pool) } else { Some(pool) })
    })
    .unwrap_err()
    .to_string()
}

#[test]
fn a_missing_pool_is_refused_even_if_another_pool_could_serve() {
    assert_eq!(
        refused(|_| None),
        "the pod's annotation bobbin.dev/pool selects pool \"gold\", which does not exist: create that AddressPool, or name another pool in the annotation"
    );
}

#[test]
fn a_name_that_no_pool_can_have_is_refused_with_the_rule() {
    let refusal = select_pool(Some("Gold"), None, Some("team"), all).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "the pod's annotation bobbin.dev/pool selects pool \"Gold\", which is not a valid pool name: a pool name has at most 63 lower-case letters, digits and '-', and begins and ends with a letter or digit. Name an existing pool in the annotation"
    );
    for name in ["a", "0", "gold-2", &"g".repeat(63)] {
        assert!(is_pool_name(name), "{name:?}");
    }
    for name in ["", " ", "gold ", "Gold", "gold.a", "a/b", "-a", "a-", "gölden", &"g".repeat(64)] {
        assert!(!is_pool_name(name), "{name:?}");
    }
}

#[test]
fn a_draining_pool_is_refused() {
    assert_eq!(
        refused(|pool| Some(PoolInfo { draining: true, ..pool })),
        "the pod's annotation bobbin.dev/pool selects pool \"gold\", which is draining and assigns no new addresses: name another pool in the annotation, or set the pool's spec.draining to false"
    );
}

#[test]
fn a_pool_that_is_being_deleted_is_refused() {
    assert_eq!(
        refused(|pool| Some(PoolInfo { deleting: true, ready: false, ..pool })),
        "the pod's annotation bobbin.dev/pool selects pool \"gold\", which is being deleted and assigns no new addresses: name another pool in the annotation"
    );
}

#[test]
fn a_pool_for_other_namespaces_is_refused() {
    assert_eq!(
        refused(|pool| Some(PoolInfo { admits_namespace: false, ..pool })),
        "the pod's annotation bobbin.dev/pool selects pool \"gold\", whose namespaceSelector does not admit namespace \"team\": name another pool in the annotation, or label the namespace so that the selector admits it"
    );
}

#[test]
fn a_pool_for_other_nodes_is_refused() {
    assert_eq!(
        refused(|pool| Some(PoolInfo { admits_node: false, ..pool })),
        "the pod's annotation bobbin.dev/pool selects pool \"gold\", whose nodeSelector does not admit the pod's node: schedule the pod on a node that the selector admits, or name another pool in the annotation"
    );
}

#[test]
fn a_pool_that_is_not_ready_is_refused_with_its_reason() {
    let why = "subnet 10.0.0.0/24 overlaps the earlier subnet 10.0.0.0/16 of pool \"default\".";
    assert_eq!(
        refused(|pool| Some(PoolInfo { ready: false, not_ready_why: Some(why), ..pool })),
        "the pod's annotation bobbin.dev/pool selects pool \"gold\", which is not ready: subnet 10.0.0.0/24 overlaps the earlier subnet 10.0.0.0/16 of pool \"default\". Alternatively, name another pool in the annotation"
    );
    assert!(
        refused(|pool| Some(PoolInfo { ready: false, ..pool }))
            .contains("the operator has not accepted its subnets yet")
    );
}

#[test]
fn the_message_names_the_source_of_the_pool() {
    let refusal = |annotation, namespace, info: fn(&str) -> Option<PoolInfo<'static>>| {
        select_pool(None, annotation, namespace, info).unwrap_err().to_string()
    };
    assert!(
        refusal(Some("x"), Some("team"), all)
            .starts_with("the namespace's annotation bobbin.dev/pool selects pool \"x\"")
    );
    assert!(
        refusal(None, Some("team"), |name| all(name).map(|pool| PoolInfo { draining: true, ..pool }))
            .starts_with("the name of the pod's namespace selects pool \"team\"")
    );
    let none = refusal(None, Some("team"), |_| None);
    assert!(
        none.starts_with(
            "the default rule (neither the pod nor its namespace selects a pool) selects pool \"default\""
        ),
        "{none}"
    );
    let closed = refusal(None, None, |name| all(name).map(|pool| PoolInfo { admits_namespace: false, ..pool }));
    assert!(closed.contains("because the call names no namespace"), "{closed}");
}
