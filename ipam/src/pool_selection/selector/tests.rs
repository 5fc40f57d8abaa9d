//! Tests that a converted selector matches the same labels as `metav1.LabelSelector` in Kubernetes.

use std::collections::BTreeMap;

use kube::core::SelectorExt;
use proptest::prelude::*;

use super::*;

type Labels = BTreeMap<String, String>;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> LabelSelectorRequirement {
    let values = (!values.is_empty()).then(|| values.iter().map(|value| (*value).to_owned()).collect());
    LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values }
}

fn selector(match_labels: &Labels, requirements: Vec<LabelSelectorRequirement>) -> LabelSelector {
    LabelSelector { match_labels: Some(match_labels.clone()), match_expressions: Some(requirements) }
}

fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    parse_selector(selector).expect("the selector is valid").matches(labels)
}

#[test]
fn an_empty_selector_matches_everything() {
    for empty in [LabelSelector::default(), selector(&Labels::new(), Vec::new())] {
        assert!(matches(&empty, &labels(&[])));
        assert!(matches(&empty, &labels(&[("a", "b")])));
    }
}

#[test]
fn each_operator_means_what_kubernetes_documents() {
    let (none, red, blue) = (labels(&[]), labels(&[("c", "red")]), labels(&[("c", "blue")]));
    let requires = |operator, values: &[&str]| selector(&none, vec![requirement("c", operator, values)]);
    let table = [
        (requires("In", &["red", "green"]), [false, true, false]),
        (requires("NotIn", &["red", "green"]), [true, false, true]),
        (requires("Exists", &[]), [false, true, true]),
        (requires("DoesNotExist", &[]), [true, false, false]),
        (selector(&red, Vec::new()), [false, true, false]),
    ];
    for (selector, expected) in table {
        assert_eq!([&none, &red, &blue].map(|labels| matches(&selector, labels)), expected, "{selector:?}");
    }
}

#[test]
fn an_invalid_requirement_is_refused() {
    let refusal = |operator, values: &[&str]| {
        let invalid = selector(&labels(&[("c", "red")]), vec![requirement("c", operator, values)]);
        parse_selector(&invalid).expect_err("the selector is invalid").to_string()
    };
    assert_eq!(
        refusal("Near", &["red"]),
        r#"the selector's requirement on "c" has the unknown operator "Near": use In, NotIn, Exists or DoesNotExist"#
    );
    assert_eq!(refusal("In", &[]), r#"the selector's requirement In on "c" has no values: give at least one"#);
    assert_eq!(refusal("NotIn", &[]), r#"the selector's requirement NotIn on "c" has no values: give at least one"#);
    for operator in ["Exists", "DoesNotExist"] {
        let expected =
            format!(r#"the selector's requirement {operator} on "c" has values: remove them, or use In or NotIn"#);
        assert_eq!(refusal(operator, &["red"]), expected);
    }
}

proptest! {
    #[test]
    fn every_part_of_a_selector_must_match(
        has in prop::collection::btree_map("[ab]", "[xy]", 0..3),
        wants in prop::collection::btree_map("[ab]", "[xy]", 0..3),
        key in "[ab]", operator in prop::sample::select(vec!["In", "NotIn"]), values in prop::collection::vec("[xy]", 1..3),
    ) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let requirement = requirement(&key, operator, &values);
        let (by_labels, by_requirement) = (selector(&wants, Vec::new()), selector(&Labels::new(), vec![requirement.clone()]));
        let is_in = has.get(&key).is_some_and(|value| values.contains(&value.as_str()));
        prop_assert_eq!(matches(&by_labels, &has), wants.iter().all(|(key, value)| has.get(key) == Some(value)));
        prop_assert_eq!(matches(&by_requirement, &has), if operator == "In" { is_in } else { !is_in });
        prop_assert_eq!(
            matches(&selector(&wants, vec![requirement]), &has),
            matches(&by_labels, &has) && matches(&by_requirement, &has)
        );
    }
}

#[test]
fn an_invalid_selector_admits_nothing_and_an_empty_one_admits_all() {
    let labels = labels(&[("zone", "a")]);
    let of = |expressions| LabelSelector { match_expressions: Some(expressions), ..LabelSelector::default() };
    assert!(admits(None, &labels) && admits(Some(&LabelSelector::default()), &labels));
    assert!(admits(Some(&of(vec![requirement("zone", "In", &["a"])])), &labels));
    assert!(!admits(Some(&of(vec![requirement("zone", "Near", &["a"])])), &labels));
}
