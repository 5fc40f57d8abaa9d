//! Tries everything that a thief could do with the token of the agent on n1. docs/security.md has the same table of
//! tries.

#[path = "stolen_token/thief.rs"]
mod thief;
#[path = "stolen_token/tries.rs"]
mod tries;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::suite::Suite;
use futures::future::BoxFuture;
use libtest_mimic::Trial;

use crate::fixture::{PolicyFixture, refused};
use thief::Thief;
use tries::TRIES;

/// The document that contains the table of tries.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");
/// The operator's flag that shortens its waits, so that fifteen minutes take 18 s.
const TIME_SCALE: &str = "--time-scale=0.02";

pub fn tests(suite: &Suite<PolicyFixture>) -> Vec<Trial> {
    vec![suite.test("every try of a stolen agent token has its answer, and docs/security.md lists it", all_tries)]
}

/// The expected answer to a try.
#[derive(Clone, Copy)]
enum Answer {
    /// The API server refuses the try with this code and these words.
    Refused(u16, &'static str),
    /// The API server allows the try. The text says why that is harmless.
    Allowed(&'static str),
    /// The API server allows the try. The text says why that is harmless, and the function checks the reason.
    Harmless(&'static str, Done),
    /// The API server allows the try, and the operator undoes it. The text says how.
    Undone(&'static str, Done),
}

/// Makes one try and returns the API server's answer.
type Call = for<'a> fn(&'a Thief) -> BoxFuture<'a, kube::Result<()>>;
/// Waits until the operator has undone the try, or checks that the try does no harm.
type Done = for<'a> fn(&'a Thief) -> BoxFuture<'a, Result<()>>;

async fn all_tries(fixture: &mut PolicyFixture) -> Result<()> {
    let _operator = fixture.start_operator(&[TIME_SCALE])?;
    let thief = Thief::new(fixture).await?;
    let (mut wrong, mut rows) = (Vec::new(), Vec::new());
    for (number, (what, answer, call)) in (1..).zip(TRIES) {
        let got = call(&thief).await;
        let result = match answer {
            Answer::Refused(code, words) => refused(got, *code, words),
            Answer::Allowed(_) => got.map_err(Into::into),
            Answer::Harmless(_, done) | Answer::Undone(_, done) => match got {
                Ok(()) => done(&thief).await,
                Err(error) => Err(error.into()),
            },
        };
        if let Err(error) = result {
            wrong.push(format!("{number}. {what}: {error:#}"));
        }
        rows.push(row(number, what, *answer));
    }
    ensure!(wrong.is_empty(), "{} of {} tries got a wrong answer:\n{}", wrong.len(), TRIES.len(), wrong.join("\n"));
    thief.nothing_is_left().await?;
    let document = std::fs::read_to_string(DOCUMENT).context(DOCUMENT)?;
    let table: Vec<&str> = document.lines().filter(|line| rows.iter().any(|row| row == line)).collect();
    ensure!(table == rows, "docs/security.md lacks this table:\n{}", rows.join("\n"));
    Ok(())
}

/// The row that docs/security.md has for a try.
fn row(number: usize, what: &str, answer: Answer) -> String {
    let answer = match answer {
        Answer::Refused(_, words) => format!("refused: \"{}\"", words.replace('"', "'")),
        Answer::Allowed(why) | Answer::Harmless(why, _) => format!("allowed: {why}"),
        Answer::Undone(how, _) => format!("undone: {how}"),
    };
    format!("| {number} | {what} | {answer} |")
}
