//! Tests the changes of assignments that an agent may make.

use anyhow::Result;
use bobbin_crds::IPAssignment;
use bobbin_e2e::suite::Suite;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use libtest_mimic::Trial;

use crate::fixture::{PolicyFixture, refused};

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![
        suite.test("an agent creates and deletes assignments of its node", creates_and_deletes),
        suite.test("refused: creating an assignment for another node", creating_for_another_node),
        suite.test("refused: deleting another node's assignment", deleting_another_nodes_assignment),
        suite.test(
            "refused: creating and deleting an assignment with a token that is bound to no pod",
            with_a_token_of_no_pod,
        ),
    ]
}

async fn creates_and_deletes(fixture: &mut PolicyFixture) -> Result<()> {
    let assignment = fixture.assignment("n1");
    let api: Api<IPAssignment> = Api::all(fixture.agent());
    api.create(&PostParams::default(), &assignment).await?;
    api.delete(&assignment.name_any(), &DeleteParams::default()).await?;
    Ok(())
}

async fn creating_for_another_node(fixture: &mut PolicyFixture) -> Result<()> {
    let assignment = fixture.assignment("n2");
    let answer = Api::<IPAssignment>::all(fixture.agent()).create(&PostParams::default(), &assignment).await;
    let words = format!(
        "the agent of node n1 may not create IPAssignment {} of node n2: an agent may do so only for its own node",
        assignment.name_any()
    );
    refused(answer, 403, &words)
}

async fn deleting_another_nodes_assignment(fixture: &mut PolicyFixture) -> Result<()> {
    let assignment = fixture.assignment("n2");
    Api::<IPAssignment>::all(fixture.admin()).create(&PostParams::default(), &assignment).await?;
    let answer =
        Api::<IPAssignment>::all(fixture.agent()).delete(&assignment.name_any(), &DeleteParams::default()).await;
    let words = format!("the agent of node n1 may not delete IPAssignment {} of node n2", assignment.name_any());
    refused(answer, 403, &words)
}

async fn with_a_token_of_no_pod(fixture: &mut PolicyFixture) -> Result<()> {
    let words = "this token of the agents' service account names no node";
    let assignment = fixture.assignment("n1");
    let nobody: Api<IPAssignment> = Api::all(fixture.agent_of_no_pod());
    refused(nobody.create(&PostParams::default(), &assignment).await, 403, words)?;
    Api::<IPAssignment>::all(fixture.admin()).create(&PostParams::default(), &assignment).await?;
    refused(nobody.delete(&assignment.name_any(), &DeleteParams::default()).await, 403, words)
}
