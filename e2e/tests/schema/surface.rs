//! Tests field selectors, the status subresource, defaults, short names and columns of Bobbin's resources.

use anyhow::{Context, Result, ensure};
use bobbin_crds::DEFAULT_COOLDOWN;
use bobbin_e2e::suite::Suite;
use kube::api::{ListParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::assignment::assignment;
use super::block::block;
use super::fixture::ApiServer;
use super::pool::pool;

pub fn tests(suite: &Suite<ApiServer>) -> Vec<Trial> {
    vec![
        suite.test("blocks are found by pool and node, free ones by an empty node name", blocks_by_field),
        suite.test("assignments are found by node, pool, block, pod and IPv6 address", assignments_by_field),
        suite.test("the status of a pool is written apart from its spec", status_apart),
        suite.test("absent fields get their defaults", defaults),
        suite.test("null is equivalent to absent", null_is_absent),
        suite.test("pools are listed with READY, FREE, USED, BLOCKS and AGE", async move |server: &mut ApiServer| {
            columns(server, "addresspools", &["Name", "Ready", "Free", "Used", "Blocks", "Age"]).await
        }),
        suite.test("a wide list of pools also shows the subnets, and the cooling and reserved addresses", wide_columns),
        suite.test("blocks are listed with addresses first", async move |server: &mut ApiServer| {
            columns(server, "addressblocks", &["Name", "IPv4", "IPv6", "Pool", "Node", "Age"]).await
        }),
        suite.test("assignments are listed with addresses first", async move |server: &mut ApiServer| {
            columns(server, "ipassignments", &["Name", "IPv4", "IPv6", "Namespace", "Pod", "Node", "Pool", "Age"]).await
        }),
        suite.test("the short names are ap, ab and ipa", short_names),
    ]
}

async fn found(server: &ApiServer, kind: &str, fields: &str) -> Result<Vec<String>> {
    let list = server.api(kind).list(&ListParams::default().fields(fields)).await?;
    Ok(list.into_iter().filter_map(|object| object.metadata.name).collect())
}

async fn blocks_by_field(server: &mut ApiServer) -> Result<()> {
    let cut = |pool: &str, index: i64| json!({"poolName": pool, "index": index, "ipv4": format!("10.9.{index}.0/27")});
    let mut claimed = cut("f1", 2);
    claimed["nodeName"] = json!("n9");
    claimed["nodeUID"] = json!("u9");
    let objects = [block("f1-0", cut("f1", 0)), block("f2-1", cut("f2", 1)), block("f1-2", claimed)];
    for object in &objects {
        server.create(object).await?;
    }
    let answers = (
        found(server, "AddressBlock", "spec.poolName=f1").await?,
        found(server, "AddressBlock", "spec.nodeName=n9").await?,
        found(server, "AddressBlock", "spec.nodeName=,spec.poolName=f1").await?,
    );
    for object in &objects {
        server.delete(object).await?;
    }
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    ensure!(answers == (names(&["f1-0", "f1-2"]), names(&["f1-2"]), names(&["f1-0"])), "found {answers:?}");
    Ok(())
}

async fn assignments_by_field(server: &mut ApiServer) -> Result<()> {
    let mut object = assignment("10.9.0.1", Some("10.9.0.1"), Some("fd00:9::1"));
    let fields = [
        ("nodeName", "n8"),
        ("poolName", "f8"),
        ("blockName", "f8-0"),
        ("podNamespace", "ns8"),
        ("podName", "p8"),
        ("podUID", "u8"),
        ("ipv6", "fd00:9::1"),
    ];
    for (field, value) in fields {
        object["spec"][field] = json!(value);
    }
    server.create(&object).await?;
    for (field, value) in fields {
        let names = found(server, "IPAssignment", &format!("spec.{field}={value}")).await?;
        ensure!(names == ["10.9.0.1"], "the field selector {field} must find one assignment, but finds {names:?}");
    }
    server.delete(&object).await
}

async fn status_apart(server: &mut ApiServer) -> Result<()> {
    let object = pool("t1", json!({"subnets": [{"ipv4": "10.9.0.0/24"}]}));
    let created = server.create(&object).await?;
    let api = server.api("AddressPool");
    let status = json!({"status": {"free": 7, "used": 3}, "spec": {"draining": true}});
    api.patch_status("t1", &PatchParams::default(), &Patch::Merge(status)).await?;
    let changed = server.replace(&object).await?;
    server.delete(&object).await?;
    ensure!(
        changed.data.pointer("/status/free") == Some(&json!(7)),
        "a change of the spec changed the status: {}",
        changed.data
    );
    ensure!(
        changed.data.pointer("/spec/draining").is_none(),
        "a change of the status changed the spec: {}",
        changed.data
    );
    ensure!(changed.metadata.generation == created.metadata.generation, "a change of the status raised the generation");
    Ok(())
}

async fn defaults(server: &mut ApiServer) -> Result<()> {
    let object = pool("t2", json!({"subnets": [{"ipv4": "10.9.0.0/24"}]}));
    let created = server.create(&object).await?;
    server.delete(&object).await?;
    let expected = json!({"subnets": [{"ipv4": "10.9.0.0/24"}], "blockSizeBits": 5, "cooldownSeconds": DEFAULT_COOLDOWN.as_secs()});
    ensure!(created.data["spec"] == expected, "the API server stored the wrong spec {}", created.data["spec"]);
    Ok(())
}

async fn null_is_absent(server: &mut ApiServer) -> Result<()> {
    let object = pool(
        "t3",
        json!({"subnets": [{"ipv4": "10.9.0.0/24", "ipv6": null}], "maxBlocksPerNode": null, "nodeSelector": null}),
    );
    let created = server.create(&object).await?;
    server.delete(&object).await?;
    let expected = json!({"subnets": [{"ipv4": "10.9.0.0/24"}], "blockSizeBits": 5, "cooldownSeconds": DEFAULT_COOLDOWN.as_secs()});
    ensure!(created.data["spec"] == expected, "the API server stored the wrong spec {}", created.data["spec"]);
    Ok(())
}

/// Lists a resource as a table, as `kubectl get` does.
async fn table(server: &ApiServer, plural: &str) -> Result<Value> {
    let request = http::Request::get(format!("/apis/bobbin.dev/v1beta1/{plural}"))
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    Ok(server.client().request(request).await?)
}

async fn columns(server: &ApiServer, plural: &str, expected: &[&str]) -> Result<()> {
    let table = table(server, plural).await?;
    let columns = table["columnDefinitions"].as_array().context("the answer is no table")?;
    let shown: Vec<&str> =
        columns.iter().filter(|column| column["priority"] == 0).filter_map(|column| column["name"].as_str()).collect();
    ensure!(shown == expected, "the API server shows the wrong columns {shown:?}");
    Ok(())
}

async fn wide_columns(server: &mut ApiServer) -> Result<()> {
    let object = pool("wide", json!({"subnets": [{"ipv4": "10.9.0.0/24"}, {"ipv4": "10.9.1.0/24"}]}));
    server.create(&object).await?;
    let counts = json!({"total": 512, "reserved": 3, "assigned": 4, "cooling": 5, "free": 500});
    let status = json!({"status": {
        "free": 500, "used": 4, "addresses": {"ipv4": counts},
        "blocks": {"total": 16, "claimed": 2, "free": 14, "summary": "14/2"},
    }});
    server.api("AddressPool").patch_status("wide", &PatchParams::default(), &Patch::Merge(status)).await?;
    let table = table(server, "addresspools").await?;
    server.delete(&object).await?;
    let columns = table["columnDefinitions"].as_array().context("the answer is no table")?;
    let cells = &table["rows"][0]["cells"];
    let cell = |name: &str| columns.iter().position(|column| column["name"] == name).map(|index| cells[index].clone());
    ensure!(cell("Blocks") == Some(json!("14/2")), "{cells}");
    ensure!(cell("Cooling") == Some(json!(5)) && cell("Reserved") == Some(json!(3)), "{cells}");
    let subnets = cell("Subnets").and_then(|cell| Some(cell.as_str()?.to_owned())).unwrap_or_default();
    ensure!(subnets.contains("10.9.0.0/24") && subnets.contains("10.9.1.0/24"), "{cells}");
    Ok(())
}

async fn short_names(server: &mut ApiServer) -> Result<()> {
    let resources = server.client().list_api_group_resources("bobbin.dev/v1beta1").await?.resources;
    for (plural, short) in [("addresspools", "ap"), ("addressblocks", "ab"), ("ipassignments", "ipa")] {
        let resource = resources
            .iter()
            .find(|resource| resource.name == plural)
            .with_context(|| format!("the API group has no resource {plural}"))?;
        let names = resource.short_names.clone().unwrap_or_default();
        ensure!(
            names == [short] && !resource.namespaced,
            "{plural} must be cluster-wide with one short name, but has the short names {names:?} (namespaced: {})",
            resource.namespaced
        );
    }
    Ok(())
}
