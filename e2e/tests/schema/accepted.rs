//! Tests the rules for changes of a pool's `subnets`, and the rules for the block numbers in the status.

use anyhow::{Context, Result, ensure};
use bobbin_e2e::suite::Suite;
use kube::api::{DynamicObject, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::fixture::{ApiServer, refused};
use super::pool::pool;

const A: &str = "10.1.0.0/24";
const B: &str = "10.2.0.0/24";
const C: &str = "10.3.0.0/24";
const STAY: &str = "accepted entries of subnets can't be changed or removed, because their addresses may be in use";
const KEEP: &str = "the status must keep each accepted subnet and its firstIndex";

fn of(name: &str, cidrs: &[&str]) -> Value {
    pool(name, json!({"subnets": cidrs.iter().map(|cidr| json!({"ipv4": cidr})).collect::<Vec<_>>()}))
}

/// An entry of `status.acceptedSubnets`. Entries that an older version of the operator wrote have no `firstIndex`.
fn entry(cidr: &str, state: &str, first_index: Option<i64>) -> Value {
    let mut entry = json!({"ipv4": cidr, "state": state, "since": "2026-01-01T00:00:00.000000Z"});
    if let Some(first) = first_index {
        entry["firstIndex"] = json!(first);
    }
    entry
}

async fn write_status(server: &ApiServer, name: &str, entries: &[Value]) -> Result<DynamicObject> {
    let status = Patch::Merge(json!({"status": {"acceptedSubnets": entries}}));
    Ok(server.api("AddressPool").patch_status(name, &PatchParams::default(), &status).await?)
}

/// Tests a change of the spec from the entries `old` to `new` while the status has the entries `listed`. If `words` is
/// set, the API server must refuse the change with these words.
fn change(
    suite: &Suite<ApiServer>,
    sentence: &str,
    name: &'static str,
    (old, listed, new): (&[&str], Vec<Value>, &[&str]),
    words: Option<&'static str>,
) -> Trial {
    let (old, new) = (of(name, old), of(name, new));
    suite.test(sentence, async move |server: &mut ApiServer| {
        server.create(&old).await?;
        write_status(server, name, &listed).await.context("the API server refused the status")?;
        let answer = server.replace(&new).await;
        server.delete(&old).await?;
        match words {
            Some(words) => refused(answer, words),
            None => answer.map(drop).context("the API server refused the change"),
        }
    })
}

pub fn tests(suite: &Suite<ApiServer>) -> Vec<Trial> {
    let a = || entry(A, "Accepted", Some(0));
    let c = || entry(C, "Accepted", Some(16));
    let old = |cidr| entry(cidr, "Accepted", None);
    let change = |sentence: &str, name, of, words| change(suite, sentence, name, of, words);
    vec![
        change("accepted: another only subnet while none is accepted", "k1", (&[A], vec![], &[B]), None),
        change("accepted: a removed subnet that was never accepted", "k2", (&[A, B, C], vec![a(), c()], &[A, C]), None),
        change("accepted: a changed subnet that was never accepted", "k3", (&[A, B], vec![a()], &[A, C]), None),
        change(
            "accepted: a removed subnet that is pending",
            "k4",
            (&[A, B], vec![a(), entry(B, "Pending", None)], &[A]),
            None,
        ),
        change("accepted: a changed order", "k5", (&[A, B, C], vec![a(), c()], &[C, A, B]), None),
        change("refused: a removed subnet that is accepted", "k6", (&[A, C], vec![a(), c()], &[A]), Some(STAY)),
        change(
            "refused: a changed subnet that is accepted",
            "k7",
            (&[A, C], vec![a(), c()], &[A, "10.3.0.0/25"]),
            Some(STAY),
        ),
        change(
            "refused: another order while blocks have no written numbers",
            "k8",
            (&[A, B, C], vec![old(A), old(C)], &[C, A, B]),
            Some(STAY),
        ),
        change(
            "refused: a removed subnet while blocks have no written numbers",
            "k9",
            (&[A, B, C], vec![old(A), old(C)], &[A, C]),
            Some(STAY),
        ),
        change(
            "accepted: an appended subnet while blocks have no written numbers",
            "k10",
            (&[A], vec![old(A)], &[A, B]),
            None,
        ),
        suite.test("a status keeps each accepted subnet with its number", status_writes),
        suite.test("the largest accepted pool can be changed, but no accepted subnet can be removed", largest),
    ]
}

async fn status_writes(server: &mut ApiServer) -> Result<()> {
    let object = of("k20", &[A, B]);
    server.create(&object).await?;
    // Add the block numbers to an entry of an older version, as the operator does.
    write_status(server, "k20", &[entry(A, "Accepted", None)]).await?;
    write_status(server, "k20", &[entry(A, "Accepted", Some(0)), entry(B, "Pending", None)]).await?;
    let answers = [
        (write_status(server, "k20", &[entry(A, "Accepted", Some(8))]).await, KEEP),
        (write_status(server, "k20", &[entry(A, "Accepted", None)]).await, KEEP),
        (write_status(server, "k20", &[entry(A, "Pending", Some(0))]).await, KEEP),
        (write_status(server, "k20", &[]).await, KEEP),
        (write_status(server, "k20", &[entry(A, "Accepted", Some(0)), entry(C, "Accepted", Some(8))]).await, STAY),
    ];
    write_status(server, "k20", &[entry(A, "Accepted", Some(0))])
        .await
        .context("the API server refused the removal of a pending entry")?;
    server.delete(&object).await?;
    answers.into_iter().try_for_each(|(answer, words)| refused(answer, words))
}

async fn largest(server: &mut ApiServer) -> Result<()> {
    let cidrs: Vec<String> = (0..64).map(|number| format!("110.111.{}.128/25", 100 + number)).collect();
    let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
    let object = of("k21", &cidrs);
    server.create(&object).await?;
    let entries: Vec<Value> =
        cidrs.iter().zip(0_i64..).map(|(cidr, number)| entry(cidr, "Accepted", Some(4 * number))).collect();
    write_status(server, "k21", &entries).await?;
    let mut drained = object.clone();
    drained["spec"]["draining"] = json!(true);
    let accepted = server.replace(&drained).await;
    let shortened = server.replace(&of("k21", &cidrs[..63])).await;
    server.delete(&object).await?;
    ensure!(accepted.is_ok(), "{accepted:?}");
    refused(shortened, STAY)
}
