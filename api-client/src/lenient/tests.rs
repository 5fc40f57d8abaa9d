use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectList, WatchEvent};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::PartialNode;

const BAD_TIMES: [&str; 3] =
    ["2026-01-01T00:00:00.000000+99:99", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"];

fn block() -> Value {
    json!({
        "apiVersion": "bobbin.dev/v1beta1", "kind": "AddressBlock",
        "metadata": {
            "name": "p-0", "uid": "u", "resourceVersion": "7", "generation": 3, "labels": {"a": "b"}, "annotations": {"c": "d"},
            "finalizers": ["bobbin.dev/in-use"], "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "nu"}],
            "managedFields": [{"manager": "m", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {"poolName": "p", "index": 0, "ipv4": "10.0.0.0/27", "nodeName": "n", "nodeUID": "nu", "freeSince": "2026-01-01T00:00:00Z"},
    })
}

fn pool() -> Value {
    json!({
        "metadata": {"name": "p", "uid": "u", "resourceVersion": "7"},
        "spec": {"subnets": [{"ipv4": "10.0.0.0/24"}], "nodeSelector": {"matchLabels": {"a": "b"}}},
        "status": {
            "acceptedSubnets": [{"ipv4": "10.0.0.0/24", "state": "Accepted", "since": "2026-01-01T00:00:00.000000Z"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    })
}

fn assignment() -> Value {
    json!({
        "metadata": {"name": "10.0.0.1", "uid": "u", "resourceVersion": "7"},
        "spec": {
            "poolName": "p", "blockName": "p-0", "nodeName": "n", "ipv4": "10.0.0.1", "containerID": "c", "ifName": "eth0",
            "createdAt": "2026-01-01T00:00:00.000000Z", "bootID": "b",
        },
    })
}

fn node() -> Value {
    json!({
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "labels": {"zone": "a"}},
        "spec": {"taints": [{"key": crate::node::OUT_OF_SERVICE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n"}],
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}],
            "images": [{"names": ["a"], "sizeBytes": 1}],
        },
    })
}

fn pod() -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {
            "name": "x", "namespace": "ns", "uid": "u", "resourceVersion": "7", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"bobbin.dev/pool": "p"},
        },
    })
}

fn lease() -> Value {
    json!({
        "metadata": {"name": "l", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"},
    })
}

/// Decodes an object from JSON text, as the client does.
fn read<K: Resource + DeserializeOwned>(object: &Value) -> serde_json::Result<Lenient<K>> {
    serde_json::from_str(&object.to_string())
}

fn name_of<K: Resource + DeserializeOwned>(object: &Value) -> Option<String> {
    read::<K>(object).ok()?.meta().name.clone()
}

/// Decodes the object once as each of the kinds that Bobbin uses. Returns each kind and the name of the decoded object.
fn kept_by_name(object: &Value) -> [(&'static str, Option<String>); 7] {
    [
        ("AddressBlock", name_of::<AddressBlock>(object)),
        ("AddressPool", name_of::<AddressPool>(object)),
        ("IPAssignment", name_of::<IPAssignment>(object)),
        ("Node", name_of::<PartialNode>(object)),
        ("Pod", name_of::<PartialObjectMeta<Pod>>(object)),
        ("Namespace", name_of::<PartialObjectMeta<Namespace>>(object)),
        ("Lease", name_of::<Lease>(object)),
    ]
}

#[test]
fn a_valid_object_is_decoded_completely_except_its_managed_fields() {
    let read: Lenient<AddressBlock> = read(&block()).expect("it is an object");
    let mut strict: AddressBlock = serde_json::from_value(block()).expect("it is valid");
    strict.metadata.managed_fields = None;
    assert_eq!(read, Lenient::Readable(strict));
}

#[test]
fn a_time_that_kubernetes_accepts_and_rust_refuses_makes_no_object_unreadable() {
    for time in BAD_TIMES {
        let managed = json!([{"manager": "m", "operation": "Update", "time": time}]);
        let mut block = block();
        block["metadata"]["managedFields"] = managed.clone();
        block["metadata"]["creationTimestamp"] = json!(time);
        block["metadata"]["deletionTimestamp"] = json!(time);
        block["spec"]["freeSince"] = json!(time);
        let block = read::<AddressBlock>(&block).expect("it is an object").into_result().expect("it is readable");
        assert_eq!(block.metadata.creation_timestamp, None);
        assert_eq!(block.metadata.deletion_timestamp.map(|time| time.0), Some(Timestamp::MAX));
        assert_eq!(block.spec.free_since.map(|time| time.0), Some(Timestamp::MAX));

        let mut pool = pool();
        pool["metadata"]["managedFields"] = managed.clone();
        pool["status"]["acceptedSubnets"][0]["since"] = json!(time);
        pool["status"]["conditions"][0]["lastTransitionTime"] = json!(time);
        assert!(read::<AddressPool>(&pool).expect("it is an object").readable().is_some());

        let mut assignment = assignment();
        assignment["spec"]["createdAt"] = json!(time);
        assert!(read::<IPAssignment>(&assignment).expect("it is an object").readable().is_some());

        let mut node = node();
        node["metadata"]["managedFields"] = managed.clone();
        node["spec"]["taints"][0]["timeAdded"] = json!(time);
        node["status"]["conditions"][0]["lastHeartbeatTime"] = json!(time);
        let node = read::<PartialNode>(&node).expect("it is an object").into_result().expect("it is readable");
        assert!(node.out_of_service() && node.is_ready() && node.addresses().len() == 1);

        let mut pod = pod();
        pod["metadata"]["managedFields"] = managed;
        pod["metadata"]["deletionTimestamp"] = json!(time);
        let pod = read::<PartialObjectMeta<Pod>>(&pod).expect("it is an object").into_result().expect("it is readable");
        assert!(pod.metadata.deletion_timestamp.is_some() && pod.metadata.annotations.is_some());
    }
}

#[test]
fn managed_fields_are_skipped_whatever_their_depth_and_numbers() {
    let deep = format!("{}1e999{}", r#"{"f:a":"#.repeat(5000), "}".repeat(5000));
    let metadata = format!(r#"{{"name": "x", "managedFields": [{{"fieldsV1": {deep}}}]}}"#);
    let pod: Lenient<PartialObjectMeta<Pod>> =
        serde_json::from_str(&format!(r#"{{"metadata": {metadata}}}"#)).expect("it is an object");
    assert_eq!(pod.readable().and_then(|pod| pod.metadata.name.as_deref()), Some("x"));
    let node: Lenient<PartialNode> =
        serde_json::from_str(&format!(r#"{{"metadata": {metadata}, "other": {deep}, "status": {{"more": {deep}}}}}"#))
            .expect("it is an object");
    assert_eq!(node.readable().and_then(|node| node.metadata.name.as_deref()), Some("x"));
}

#[test]
fn an_unreadable_object_keeps_its_name_and_says_why() {
    let mut wrong = block();
    wrong["spec"]["index"] = json!("seven");
    let object = read::<AddressBlock>(&wrong).expect("it is an object").into_result().expect_err("it is unreadable");
    assert_eq!(object.name(), "p-0");
    assert_eq!((object.metadata.uid.as_deref(), object.metadata.resource_version.as_deref()), (Some("u"), Some("7")));
    assert!(object.why.contains("invalid type: string \"seven\", expected i64"), "{}", object.why);

    let mut wrong = block();
    wrong["metadata"]["labels"] = json!({"a": 7});
    let object = read::<AddressBlock>(&wrong).expect("it is an object").into_result().expect_err("it is unreadable");
    assert!(object.why.starts_with("metadata.labels: ") && object.metadata.finalizers.is_some(), "{object:?}");
}

#[test]
fn one_unreadable_object_of_a_list_leaves_the_others_readable() {
    let mut wrong = block();
    wrong["spec"] = json!(null);
    let list = json!({"kind": "AddressBlockList", "apiVersion": "bobbin.dev/v1beta1", "metadata": {"resourceVersion": "9"}, "items": [block(), wrong, block()]});
    let list: ObjectList<Lenient<AddressBlock>> = serde_json::from_str(&list.to_string()).expect("it is a list");
    let readable: Vec<bool> = list.items.iter().map(|object| object.readable().is_some()).collect();
    assert_eq!(readable, [true, false, true]);
}

#[test]
fn a_watch_event_delivers_an_unreadable_object_and_errors_stay_errors() {
    let mut wrong = node();
    wrong["status"] = json!(7);
    let event = format!(r#"{{"type":"MODIFIED","object":{wrong}}}"#);
    let event: WatchEvent<Lenient<PartialNode>> = serde_json::from_str(&event).expect("it is an event");
    assert!(matches!(event, WatchEvent::Modified(object) if object.name() == "n" && object.readable().is_none()));
    let event = r#"{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":410,"reason":"Expired"}}"#;
    let event: WatchEvent<Lenient<PartialNode>> = serde_json::from_str(event).expect("it is an event");
    assert!(matches!(event, WatchEvent::Error(status) if status.code == 410));
}

#[test]
fn input_without_a_name_is_refused() {
    for text in ["7", "null", "[]", "{}", r#"{"metadata": {}}"#, r#"{"metadata": {"name": 7}}"#, r#"{"metadata": "x"}"#]
    {
        assert!(serde_json::from_str::<Lenient<AddressBlock>>(text).is_err(), "{text}");
    }
}

#[test]
fn an_unreadable_object_is_reported_once_and_counted_until_it_is_readable_or_gone() {
    let unreadable = UnreadableObjects::default();
    let good: Lenient<AddressBlock> = read(&block()).expect("it is an object");
    let mut wrong = block();
    wrong["spec"]["index"] = json!("seven");
    let wrong: Lenient<AddressBlock> = read(&wrong).expect("it is an object");
    let count = || unreadable.counts().get("AddressBlock").copied();

    let notice = unreadable.event(&Event::InitApply(wrong.clone())).expect("it is new");
    assert!(notice.text.starts_with("AddressBlock p-0 can't be read: "), "{}", notice.text);
    assert!(notice.text.ends_with("kubectl edit addressblocks.bobbin.dev p-0"), "{}", notice.text);
    assert_eq!(notice.object.name.as_deref(), Some("p-0"));
    assert_eq!(unreadable.event(&Event::Apply(wrong.clone())), None);
    assert_eq!(unreadable.event::<AddressBlock>(&Event::InitDone), None);
    assert_eq!(count(), Some(1));
    unreadable.event(&Event::Apply(good));
    assert_eq!(count(), Some(0));
    assert!(unreadable.note(&wrong).is_some());
    unreadable.event(&Event::Delete(wrong.clone()));
    assert_eq!(count(), Some(0));
    // If an object is missing in a new list, the object no longer exists, so the register forgets the object.
    assert!(unreadable.note(&wrong).is_some());
    unreadable.event::<AddressBlock>(&Event::Init);
    unreadable.event::<AddressBlock>(&Event::InitDone);
    assert_eq!(count(), Some(0));
}

/// Generates random JSON values.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        proptest::sample::select(&BAD_TIMES[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![
            "[a-z]{1,3}",
            proptest::sample::select(&["spec", "status", "time", "name"][..]).prop_map(str::to_owned)
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Collects all positions in a JSON value, as JSON pointers.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in inner {
        let place = format!("{at}/{key}");
        places(value, &place, all);
        all.push(place);
    }
}

/// Generates an object of any kind in which one field is missing or wrong. A wrong field has a random JSON value.
fn spoilt() -> impl Strategy<Value = Value> {
    let objects = vec![block(), pool(), assignment(), node(), pod(), lease()];
    (proptest::sample::select(objects), any::<proptest::sample::Index>(), proptest::option::of(any_json())).prop_map(
        |(mut object, index, junk)| {
            let mut all = Vec::new();
            places(&object, "", &mut all);
            all.retain(|place| place != "/metadata" && place != "/metadata/name");
            let place = index.get(&all);
            let (parent, key) = place.rsplit_once('/').expect("a place has a parent");
            match (object.pointer_mut(parent).expect("the parent is there"), junk) {
                (Value::Object(map), Some(junk)) => drop(map.insert(key.to_owned(), junk)),
                (Value::Object(map), None) => drop(map.remove(key)),
                (Value::Array(list), Some(junk)) => list.push(junk),
                (Value::Array(list), None) => list.clear(),
                _ => {}
            }
            object
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_object_with_a_name_keeps_it(
        name in ".{0,20}", metadata in proptest::collection::btree_map("[a-zA-Z]{1,8}", any_json(), 0..3), spec in any_json(), status in any_json(),
    ) {
        let mut metadata: Value = metadata.into_iter().collect();
        metadata["name"] = json!(name);
        let object = json!({"metadata": metadata, "spec": spec, "status": status});
        for (kind, kept) in kept_by_name(&object) {
            prop_assert_eq!(kept.as_deref(), Some(name.as_str()), "decoded as {}, this object lost its name: {}", kind, object);
        }
    }

    #[test]
    fn a_valid_object_with_one_wrong_field_keeps_its_name(object in spoilt()) {
        for (kind, kept) in kept_by_name(&object) {
            prop_assert_eq!(kept.as_deref(), object["metadata"]["name"].as_str(), "decoded as {}, this object lost its name: {}", kind, object);
        }
    }

    #[test]
    fn any_json_is_decoded_or_refused_without_a_panic(json in any_json()) {
        kept_by_name(&json);
    }
}
