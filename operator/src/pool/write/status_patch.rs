//! Computes the JSON patch that changes an object's status from one value to another. Pure.
//!
//! The patch contains only the differences between the two values. Fields that only a newer version knows are in
//! neither value, so the patch leaves these fields unchanged.

use serde_json::{Map, Value, json};

/// The fields that identify an item of a list: a condition by its type, and a subnet entry by its CIDRs.
const IDENTITY: [&str; 3] = ["type", "ipv4", "ipv6"];

/// The operations that change `old`, the value at `path`, to `new`. Both values have the same type.
pub(super) fn operations(path: &str, old: &Value, new: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    change(path, old, new, &mut operations);
    operations
}

fn change(path: &str, old: &Value, new: &Value, operations: &mut Vec<Value>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(fields), Value::Object(new)) if !is_blank(old) => change_fields(path, fields, new, operations),
        (Value::Array(old), Value::Array(new)) if is_keyed(old) && is_keyed(new) => {
            change_items(path, old, new, operations);
        }
        (_, new) => operations.push(json!({"op": "add", "path": path, "value": new})),
    }
}

fn change_fields(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, operations: &mut Vec<Value>) {
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        operations.push(json!({"op": "remove", "path": format!("{path}/{field}")}));
    }
    for (field, value) in new {
        let path = format!("{path}/{field}");
        match old.get(field) {
            Some(old) => change(&path, old, value, operations),
            None => operations.push(json!({"op": "add", "path": path, "value": value})),
        }
    }
}

/// Changes a list item by item, so that an item keeps its unknown fields when its position changes.
fn change_items(path: &str, old: &[Value], new: &[Value], operations: &mut Vec<Value>) {
    let mut items: Vec<&Value> = old.iter().collect();
    for position in (0..items.len()).rev() {
        if !new.iter().any(|new| identity(new) == identity(items[position])) {
            operations.push(json!({"op": "remove", "path": format!("{path}/{position}")}));
            items.remove(position);
        }
    }
    for (position, wanted) in new.iter().enumerate() {
        let target = format!("{path}/{position}");
        let Some(found) = items.iter().position(|item| identity(item) == identity(wanted)) else {
            operations.push(json!({"op": "add", "path": target, "value": wanted}));
            items.insert(position, wanted);
            continue;
        };
        if found != position {
            operations.push(json!({"op": "move", "from": format!("{path}/{found}"), "path": target}));
            let item = items.remove(found);
            items.insert(position, item);
        }
        change(&target, items[position], wanted, operations);
    }
}

/// Whether a value is a default value or contains only default values. The stored object may lack such a value, so the
/// patch replaces the whole value instead of single fields.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().all(is_blank),
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Null => true,
    }
}

fn identity(item: &Value) -> [Option<&str>; 3] {
    IDENTITY.map(|field| item.get(field).and_then(Value::as_str))
}

/// Whether each item of a list has an identity, and no two items have the same identity.
fn is_keyed(items: &[Value]) -> bool {
    let identities: Vec<_> = items.iter().map(identity).collect();
    let is_new = |(position, one): (usize, &[Option<&str>; 3])| !identities[..position].contains(one);
    identities.iter().all(|one| one.iter().any(Option::is_some)) && identities.iter().enumerate().all(is_new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes the patch that changes `old` to `new`, and applies it to the document `stored`, which has more fields than `old`.
    fn applied(stored: &Value, old: &Value, new: &Value) -> Value {
        let operations = operations("/status", old, new);
        let mut document = json!({"status": stored});
        for operation in &operations {
            apply(&mut document, operation);
        }
        document["status"].take()
    }

    /// Applies one operation as RFC 6902 says.
    fn apply(document: &mut Value, operation: &Value) {
        let path = operation["path"].as_str().expect("an operation has a path");
        match operation["op"].as_str() {
            Some("remove") => drop(remove(document, path)),
            Some("move") => {
                let from = operation["from"].as_str().expect("a move has a source");
                let value = remove(document, from);
                add(document, path, value);
            }
            Some("add") => add(document, path, operation["value"].clone()),
            other => unreachable!("operation {other:?}"),
        }
    }

    fn parent<'a, 'b>(document: &'a mut Value, path: &'b str) -> (&'a mut Value, &'b str) {
        let (parent, name) = path.rsplit_once('/').expect("a path has a slash");
        (document.pointer_mut(parent).expect("the parent exists"), name)
    }

    fn remove(document: &mut Value, path: &str) -> Value {
        match parent(document, path) {
            (Value::Array(items), name) => items.remove(name.parse().expect("it is an index")),
            (parent, name) => parent.as_object_mut().and_then(|fields| fields.remove(name)).expect("the field exists"),
        }
    }

    fn add(document: &mut Value, path: &str, value: Value) {
        match parent(document, path) {
            (Value::Array(items), name) => items.insert(name.parse().expect("it is an index"), value),
            (parent, name) => parent[name] = value,
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let old = json!({"free": 1, "used": 2, "blocks": {"total": 3, "free": 1}, "window": {"first": 0}});
        let new = json!({"free": 0, "used": 2, "blocks": {"total": 3, "free": 0}, "since": "now"});
        assert_eq!(operations("/status", &old, &old), Vec::<Value>::new());
        assert_eq!(
            operations("/status", &old, &new),
            [
                json!({"op": "remove", "path": "/status/window"}),
                json!({"op": "add", "path": "/status/blocks/free", "value": 0}),
                json!({"op": "add", "path": "/status/free", "value": 0}),
                json!({"op": "add", "path": "/status/since", "value": "now"}),
            ]
        );
    }

    #[test]
    fn a_list_item_keeps_the_fields_of_a_newer_version_wherever_it_moves() {
        let old = json!({"subnets": [{"ipv4": "a", "state": "Pending"}, {"ipv4": "b"}, {"ipv4": "c"}]});
        let new = json!({"subnets": [{"ipv4": "c"}, {"ipv4": "d"}, {"ipv4": "a", "state": "Accepted"}]});
        let stored = json!({"newer": 1, "subnets": [
            {"ipv4": "a", "state": "Pending", "newer": "of a"}, {"ipv4": "b"}, {"ipv4": "c", "newer": "of c"},
        ]});
        assert_eq!(
            applied(&stored, &old, &new),
            json!({"newer": 1, "subnets": [
                {"ipv4": "c", "newer": "of c"}, {"ipv4": "d"}, {"ipv4": "a", "state": "Accepted", "newer": "of a"},
            ]})
        );
    }

    #[test]
    fn a_part_that_the_stored_status_may_lack_is_written_as_a_whole() {
        let old = json!({"used": 1, "blocks": {"total": 0, "free": 0}});
        let new = json!({"used": 1, "blocks": {"total": 8, "free": 0}});
        assert_eq!(applied(&json!({"used": 1}), &old, &new), new);
    }

    #[test]
    fn a_list_without_identities_is_replaced() {
        let (old, new) = (json!({"names": ["a", "b"]}), json!({"names": ["b"]}));
        assert_eq!(applied(&old, &old, &new), new);
        let (old, new) = (json!({"list": [{"ipv4": "a"}, {"ipv4": "a"}]}), json!({"list": [{"ipv4": "a"}]}));
        assert_eq!(applied(&old, &old, &new), new);
    }
}
