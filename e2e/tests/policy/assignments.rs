//! What an agent may do to assignments.

use anyhow::Result;
use bobbin_crds::IPAssignment;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use libtest_mimic::Trial;

use crate::place::{Place, refused};

pub fn tests(place: &Place) -> Vec<Trial> {
    vec![
        place.test("an agent records and deletes addresses of its node", records_and_deletes),
        place.test("refused: recording in the name of another node", recording_for_another_node),
        place.test("refused: deleting another node's record", deleting_another_nodes_record),
        place.test("refused: recording and deleting with a token of no pod", with_a_token_of_no_pod),
    ]
}

async fn records_and_deletes(place: Place) -> Result<()> {
    let assignment = place.assignment("n1")?;
    let api: Api<IPAssignment> = Api::all(place.agent()?);
    api.create(&PostParams::default(), &assignment).await?;
    api.delete(&assignment.name_any(), &DeleteParams::default()).await?;
    Ok(())
}

async fn recording_for_another_node(place: Place) -> Result<()> {
    let assignment = place.assignment("n2")?;
    let answer = Api::<IPAssignment>::all(place.agent()?).create(&PostParams::default(), &assignment).await;
    let words = format!(
        "the agent of node n1 may not record address {} in the name of node n2: it may do so for its own node only",
        assignment.name_any()
    );
    refused(answer, 403, &words)
}

async fn deleting_another_nodes_record(place: Place) -> Result<()> {
    let assignment = place.assignment("n2")?;
    Api::<IPAssignment>::all(place.admin()?).create(&PostParams::default(), &assignment).await?;
    let answer =
        Api::<IPAssignment>::all(place.agent()?).delete(&assignment.name_any(), &DeleteParams::default()).await;
    let words = format!("the agent of node n1 may not delete address {} in the name of node n2", assignment.name_any());
    refused(answer, 403, &words)
}

async fn with_a_token_of_no_pod(place: Place) -> Result<()> {
    let words = "this token of the agents' service account names no node";
    let assignment = place.assignment("n1")?;
    let nobody: Api<IPAssignment> = Api::all(place.agent_of_no_pod()?);
    refused(nobody.create(&PostParams::default(), &assignment).await, 403, words)?;
    Api::<IPAssignment>::all(place.admin()?).create(&PostParams::default(), &assignment).await?;
    refused(nobody.delete(&assignment.name_any(), &DeleteParams::default()).await, 403, words)
}
