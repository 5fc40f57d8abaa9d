//! Selectors mean what `metav1.LabelSelector` means.

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn asks(key: &str, operator: &str, values: &[&str]) -> Selector {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    Selector { match_expressions: vec![Expression::parse(key, operator, &values).unwrap()], ..Selector::default() }
}

#[test]
fn an_empty_selector_admits_all() {
    assert!(Selector::default().admits(&labels(&[])));
    assert!(Selector::default().admits(&labels(&[("a", "b")])));
}

#[test]
fn each_operator_asks_what_kubernetes_says() {
    let (none, red, blue) = (labels(&[]), labels(&[("c", "red")]), labels(&[("c", "blue")]));
    let table = [
        (asks("c", "In", &["red", "green"]), [false, true, false]),
        (asks("c", "NotIn", &["red", "green"]), [true, false, true]),
        (asks("c", "Exists", &[]), [false, true, true]),
        (asks("c", "DoesNotExist", &[]), [true, false, false]),
        (Selector { match_labels: red.clone(), ..Selector::default() }, [false, true, false]),
    ];
    for (selector, expected) in table {
        assert_eq!([&none, &red, &blue].map(|labels| selector.admits(labels)), expected, "{selector:?}");
    }
}

#[test]
fn an_expression_that_means_nothing_is_refused() {
    let refusal = |operator, values: &[String]| Expression::parse("c", operator, values).unwrap_err().to_string();
    let red = ["red".to_owned()];
    assert!(refusal("Near", &red).contains("use In, NotIn, Exists or DoesNotExist"));
    assert!(refusal("In", &[]).contains("give at least one"));
    assert!(refusal("NotIn", &[]).contains("give at least one"));
    assert!(refusal("Exists", &red).contains("remove them"));
    assert!(refusal("DoesNotExist", &red).contains("remove them"));
}

proptest! {
    #[test]
    fn all_parts_must_hold(
        has in prop::collection::btree_map("[ab]", "[xy]", 0..3),
        wants in prop::collection::btree_map("[ab]", "[xy]", 0..3),
        key in "[ab]", operator in prop::sample::select(vec!["In", "NotIn"]), values in prop::collection::vec("[xy]", 1..3),
    ) {
        let expression = Expression::parse(&key, operator, &values).unwrap();
        let labelled = Selector { match_labels: wants.clone(), match_expressions: vec![] };
        let expressed = Selector { match_labels: BTreeMap::new(), match_expressions: vec![expression.clone()] };
        let both = Selector { match_labels: wants.clone(), match_expressions: vec![expression] };
        let is_in = has.get(&key).is_some_and(|value| values.contains(value));
        prop_assert_eq!(labelled.admits(&has), wants.iter().all(|(key, value)| has.get(key) == Some(value)));
        prop_assert_eq!(expressed.admits(&has), if operator == "In" { is_in } else { !is_in });
        prop_assert_eq!(both.admits(&has), labelled.admits(&has) && expressed.admits(&has));
    }
}
