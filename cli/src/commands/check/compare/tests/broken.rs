use super::*;
use crate::api::objects::Read;

#[test]
fn a_broken_attachment_of_a_pod_that_is_gone_is_released_by_the_agent() {
    let broken = |pod: Option<Read<k8s_openapi::api::core::v1::Pod>>| {
        let mut given = healthy();
        given.views[0].1["attachments"][0]["state"] = json!("broken");
        let mut observed = observed(given);
        let name = ("shop".to_owned(), "a".to_owned());
        assert_eq!(pods_to_read(&observed, &BTreeSet::new()), BTreeSet::from([name.clone()]));
        observed.pods = pod.into_iter().map(|pod| (name.clone(), pod)).collect();
        let mut findings = compare(&observed, &BTreeSet::new());
        assert_eq!((findings.len(), findings[0].kind), (1, Kind::BrokenAttachment));
        findings.remove(0)
    };
    assert!(broken(Some(Read::Absent)).you.starts_with("nothing"));
    assert!(broken(Some(Read::Unknown)).you.starts_with("delete the pod"));
    assert!(broken(None).you.starts_with("delete the pod"));
}
