//! Tests the JSON of a result in each CNI version. Also tests that parsing the JSON returns the same result.

use super::*;

fn sample() -> AddResult {
    AddResult {
        interfaces: vec![
            Interface {
                name: "bobab12".into(),
                mac: Some("02:00:00:00:00:01".into()),
                mtu: Some(1500),
                ..Interface::default()
            },
            Interface {
                name: "eth0".into(),
                mac: Some("02:00:00:00:00:02".into()),
                mtu: Some(1500),
                sandbox: Some("/run/netns/a".into()),
                ..Interface::default()
            },
        ],
        ips: vec![
            Ip {
                address: "10.64.0.5/32".parse().unwrap(),
                gateway: Some("169.254.1.1".parse().unwrap()),
                interface: Some(1),
            },
            Ip {
                address: "fd00:64::5/128".parse().unwrap(),
                gateway: Some("fe80::1".parse().unwrap()),
                interface: Some(1),
            },
        ],
        routes: vec![
            Route::new("0.0.0.0/0".parse().unwrap(), Some("169.254.1.1".parse().unwrap())),
            Route::new("::/0".parse().unwrap(), Some("fe80::1".parse().unwrap())),
        ],
        dns: Map::new(),
    }
}

fn golden(version: &str, ip_version: (&str, &str), mtu: &str) -> Value {
    serde_json::from_str(&format!(
        r#"{{"cniVersion":"{version}",
            "interfaces":[{{"name":"bobab12","mac":"02:00:00:00:00:01"{mtu}}},
                          {{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/a"{mtu}}}],
            "ips":[{{{}"interface":1,"address":"10.64.0.5/32","gateway":"169.254.1.1"}},
                   {{{}"interface":1,"address":"fd00:64::5/128","gateway":"fe80::1"}}],
            "routes":[{{"dst":"0.0.0.0/0","gw":"169.254.1.1"}},{{"dst":"::/0","gw":"fe80::1"}}],
            "dns":{{}}}}"#,
        ip_version.0, ip_version.1
    ))
    .unwrap()
}

#[test]
fn before_1_0_an_address_has_its_family() {
    for version in [Version::V0_3_1, Version::V0_4_0] {
        assert_eq!(sample().to_value(version), golden(version.text(), (r#""version":"4","#, r#""version":"6","#), ""));
    }
}

#[test]
fn in_1_0_an_address_has_no_family_and_a_link_has_no_mtu() {
    assert_eq!(sample().to_value(Version::V1_0_0), golden("1.0.0", ("", ""), ""));
}

#[test]
fn since_1_1_a_link_has_its_mtu() {
    assert_eq!(sample().to_value(Version::V1_1_0), golden("1.1.0", ("", ""), r#","mtu":1500"#));
}

#[test]
fn a_result_in_1_1_is_parsed_back_unchanged() {
    let value: Value = serde_json::from_slice(&sample().to_json(Version::V1_1_0)).unwrap();
    assert_eq!(AddResult::from_json(&value).unwrap(), sample());
}

#[test]
fn addresses_and_routes_are_parsed_back_in_each_version() {
    for version in Version::ALL {
        let read = AddResult::from_json(&sample().to_value(version)).unwrap();
        assert_eq!((read.ips, read.routes), (sample().ips, sample().routes));
    }
}

#[test]
fn an_invalid_prev_result_is_refused_with_the_wrong_field() {
    for (text, word) in [
        (r"[]", "object"),
        (r#"{"ips":{}}"#, "ips"),
        (r#"{"ips":[{}]}"#, "address"),
        (r#"{"ips":[{"address":"10.0.0.300/24"}]}"#, "10.0.0.300"),
        (r#"{"interfaces":[{"name":5}]}"#, "name"),
        (r#"{"routes":[{"dst":"x"}]}"#, "dst"),
    ] {
        let why = AddResult::from_json(&serde_json::from_str(text).unwrap()).unwrap_err();
        assert!(why.contains(word), "{why}");
    }
}
