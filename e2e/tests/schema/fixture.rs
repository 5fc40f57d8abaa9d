//! An API server with Bobbin's custom resource definitions, and functions that create tests of accepted and refused
//! objects.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bobbin_e2e::control_plane::{ControlPlane, ControlPlaneOptions, install_crds};
use bobbin_e2e::suite::{Fixture, Suite};
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::response::StatusCause;
use kube::core::{ApiResource, GroupVersionKind, Status};
use libtest_mimic::Trial;
use serde_json::Value;

/// How long one test may take.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// A control plane with the custom resource definitions installed.
pub struct ApiServer {
    client: kube::Client,
    _control_plane: ControlPlane,
}

impl Fixture for ApiServer {}

/// Creates the suite whose tests share one API server.
pub fn suite() -> Result<Suite<ApiServer>> {
    Ok(Suite::new(ApiServer::start)?.with_timeout(TEST_TIMEOUT))
}

impl ApiServer {
    async fn start() -> Result<Self> {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
        let client = control_plane.client().await?;
        install_crds(&client).await?;
        Ok(Self { client, _control_plane: control_plane })
    }

    /// A client with the rights of an administrator.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The API of one of Bobbin's resources.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("bobbin.dev", "v1beta1", kind));
        Api::all_with(self.client(), &resource)
    }

    pub async fn create(&self, object: &Value) -> Result<DynamicObject> {
        let typed: DynamicObject = serde_json::from_value(object.clone())?;
        Ok(self.api(text(object, "/kind")).create(&PostParams::default(), &typed).await?)
    }

    /// Replaces the object of the same name. Ignores the resourceVersion of the existing object.
    pub async fn replace(&self, object: &Value) -> Result<DynamicObject> {
        let api = self.api(text(object, "/kind"));
        let mut typed: DynamicObject = serde_json::from_value(object.clone())?;
        let name = text(object, "/metadata/name");
        typed.metadata.resource_version = api.get(name).await?.metadata.resource_version;
        Ok(api.replace(name, &PostParams::default(), &typed).await?)
    }

    pub async fn delete(&self, object: &Value) -> Result<()> {
        self.api(text(object, "/kind")).delete(text(object, "/metadata/name"), &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Creates tests, each of which checks that the API server accepts or refuses an object or a change.
pub trait SchemaTests {
    /// Tests that the API server accepts an object.
    fn accepts(&self, sentence: &str, object: Value) -> Trial;

    /// Tests that the API server refuses an object with these words and for no other reason.
    fn refuses(&self, sentence: &str, object: Value, words: &str) -> Trial;

    /// Tests that the API server accepts the change of an object.
    fn accepts_change(&self, sentence: &str, old: Value, new: Value) -> Trial;

    /// Tests that the API server refuses the change of an object with these words and for no other reason.
    fn refuses_change(&self, sentence: &str, old: Value, new: Value, words: &str) -> Trial;
}

impl SchemaTests for Suite<ApiServer> {
    fn accepts(&self, sentence: &str, object: Value) -> Trial {
        self.test(&format!("accepted: {sentence}"), async move |server: &mut ApiServer| {
            server.create(&object).await.context("the API server refused the object")?;
            server.delete(&object).await
        })
    }

    fn refuses(&self, sentence: &str, object: Value, words: &str) -> Trial {
        let words = words.to_owned();
        self.test(&format!("refused: {sentence}"), async move |server: &mut ApiServer| {
            let answer = server.create(&object).await;
            if answer.is_ok() {
                server.delete(&object).await?;
            }
            refused(answer, &words)
        })
    }

    fn accepts_change(&self, sentence: &str, old: Value, new: Value) -> Trial {
        self.test(&format!("accepted: {sentence}"), async move |server: &mut ApiServer| {
            server.create(&old).await.context("the API server refused the object before its change")?;
            let answer = server.replace(&new).await;
            server.delete(&old).await?;
            answer.context("the API server refused the object").map(drop)
        })
    }

    fn refuses_change(&self, sentence: &str, old: Value, new: Value, words: &str) -> Trial {
        let words = words.to_owned();
        self.test(&format!("refused: {sentence}"), async move |server: &mut ApiServer| {
            server.create(&old).await.context("the API server refused the object before its change")?;
            let answer = server.replace(&new).await;
            server.delete(&old).await?;
            refused(answer, &words)
        })
    }
}

/// Checks that the answer is a refusal with a single reason, and that the refusal contains these words.
pub fn refused(answer: Result<DynamicObject>, words: &str) -> Result<()> {
    let status = refused_among_others(answer, words)?;
    // If an object exceeds a bound of the schema, the API server does not evaluate the rules. It then adds a cause with
    // the text below, which does not count as a reason of the refusal.
    let is_reason = |cause: &&StatusCause| !cause.message.contains("some validation rules were not checked");
    let reasons = status.details.iter().flat_map(|details| &details.causes).filter(is_reason).count();
    ensure!(
        reasons == 1,
        "the API server must refuse the object for one reason, but has {reasons}: {}",
        status.message
    );
    Ok(())
}

/// Checks that the answer is a refusal with these words. The refusal may also have other reasons.
pub fn refused_among_others(answer: Result<DynamicObject>, words: &str) -> Result<Status> {
    let Err(error) = answer else { bail!("the API server accepted the object") };
    let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() else { return Err(error) };
    ensure!(status.code == 422, "the API server refused the object, but not as invalid: {}", status.message);
    ensure!(
        status.message.contains(words),
        "the refusal must contain the words\n  {words}\nbut it says\n  {}",
        status.message
    );
    Ok(Status::clone(status))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
