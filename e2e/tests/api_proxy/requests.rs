//! Tests faults of single requests. The tests then ask the API server directly, not through the proxy, whether it
//! applied the write.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bobbin_e2e::api_proxy::Fault;
use bobbin_e2e::single_node::SingleNode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams};

use super::clients::{config_map, direct, requests, through_proxy, was_created};

async fn create(api: &Api<ConfigMap>, name: &str) -> kube::Result<ConfigMap> {
    api.create(&PostParams::default(), &config_map(name)).await
}

/// The error status with which the API server or the proxy refused a request.
fn code(answer: kube::Result<ConfigMap>) -> Result<u16> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(status.code),
        other => bail!("the answer must be an error status, not {other:?}"),
    }
}

/// Fails if a request was answered.
fn has_no_answer(answer: &kube::Result<ConfigMap>) -> Result<()> {
    ensure!(
        matches!(answer, Err(error) if !matches!(error, kube::Error::Api(_))),
        "the request must have no answer, but the answer is {answer:?}"
    );
    Ok(())
}

pub async fn delay(node: &mut SingleNode) -> Result<()> {
    const TIME: Duration = Duration::from_millis(700);
    let api = through_proxy(node).await?;
    let late = node.api()?.inject(requests(&["create"]), Fault::Delay(TIME));
    let start = Instant::now();
    create(&api, "late").await?;
    ensure!(start.elapsed() >= TIME, "the answer came after only {:?}, in spite of the delay", start.elapsed());
    drop(late);
    ensure!(was_created(node, "late").await?, "the late write was not applied");
    Ok(())
}

pub async fn lost_answer(node: &mut SingleNode) -> Result<()> {
    let api = through_proxy(node).await?;
    let lost = node.api()?.inject(requests(&["create", "delete"]), Fault::LoseAnswer);
    has_no_answer(&create(&api, "lost").await)?;
    ensure!(direct(node).get_opt("lost").await?.is_some(), "the create was not applied");
    ensure!(api.delete("lost", &DeleteParams::default()).await.is_err(), "the delete must have no answer");
    ensure!(!was_created(node, "lost").await?, "the delete was not applied");
    drop(lost);
    Ok(())
}

pub async fn twice(node: &mut SingleNode) -> Result<()> {
    let api = through_proxy(node).await?;
    let repeated = node.api()?.inject(requests(&["create", "delete"]), Fault::ApplyTwice);
    let code_of_create = code(create(&api, "twice").await)?;
    ensure!(code_of_create == 409, "the second create was answered with {code_of_create}");
    // The API server generates a name for each created object, so a repeated create makes a second object.
    let mut unnamed = ConfigMap::default();
    unnamed.metadata.generate_name = Some("twin-".to_owned());
    api.create(&PostParams::default(), &unnamed).await?;
    let all = direct(node).list(&ListParams::default()).await?.items;
    let names = all.into_iter().filter_map(|one| one.metadata.name).filter(|name| name.starts_with("twin-"));
    let twins: Vec<String> = names.collect();
    ensure!(twins.len() == 2, "a create that was applied twice must make two objects, but made {twins:?}");
    for twin in &twins {
        direct(node).delete(twin, &DeleteParams::default()).await?;
    }
    let deleted = api.delete("twice", &DeleteParams::default()).await;
    ensure!(
        matches!(&deleted, Err(kube::Error::Api(status)) if status.code == 404),
        "the second delete must be answered with NotFound, but the answer is {deleted:?}"
    );
    ensure!(!was_created(node, "twice").await?, "the delete was not applied");
    drop(repeated);
    Ok(())
}

pub async fn refused(node: &mut SingleNode) -> Result<()> {
    let api = through_proxy(node).await?;
    for status in [409, 500, 503] {
        let refused = node.api()?.inject(requests(&["create"]), Fault::Refuse(status));
        let seen = code(create(&api, "refused").await)?;
        ensure!(seen == status, "the client sees the status {seen} instead of {status}");
        ensure!(
            !was_created(node, "refused").await?,
            "the API server applied the write in spite of the status {status}"
        );
        drop(refused);
    }
    create(&api, "refused").await?;
    ensure!(was_created(node, "refused").await?, "after the fault the write was not applied");
    Ok(())
}

pub async fn throttled(node: &mut SingleNode) -> Result<()> {
    let client = through_proxy(node).await?.into_client();
    let throttled = node.api()?.inject(requests(&["create"]), Fault::Throttle(Duration::from_secs(7)));
    let body = serde_json::to_vec(&config_map("throttled"))?;
    let request =
        http::Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
    let answer = client.send(request.body(body.into())?).await?;
    let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    ensure!(
        answer.status() == 429 && retry_after == Some("7"),
        "the client sees the status {} with Retry-After {retry_after:?}",
        answer.status()
    );
    drop(throttled);
    ensure!(!was_created(node, "throttled").await?, "the API server applied the throttled write");
    Ok(())
}

pub async fn reset(node: &mut SingleNode) -> Result<()> {
    let api = through_proxy(node).await?;
    let resets = node.api()?.inject(requests(&["create"]), Fault::Reset);
    has_no_answer(&create(&api, "reset").await)?;
    drop(resets);
    ensure!(!was_created(node, "reset").await?, "the write was applied");
    create(&api, "reset").await?;
    ensure!(was_created(node, "reset").await?, "after the fault the write was not applied");
    Ok(())
}

pub async fn once(node: &mut SingleNode) -> Result<()> {
    let api = through_proxy(node).await?;
    let first = node.api()?.inject(requests(&["create"]).once(), Fault::LoseAnswer);
    has_no_answer(&create(&api, "first").await)?;
    create(&api, "second").await?;
    drop(first);
    ensure!(was_created(node, "first").await? && was_created(node, "second").await?, "a write was not applied");
    Ok(())
}
