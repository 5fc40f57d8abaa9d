//! `dashboard`: serves a read-only page on this machine, with the kubeconfig and the rights of the user.

mod problems;
mod server;
mod snapshot;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::Answer;
use crate::api::connection::Connection;
use crate::args::DashboardArgs;
use crate::print::failure::advised;
use crate::print::output::{Output, Report};
use server::Place;
use snapshot::Source;

/// Serves the page until the user interrupts the command.
pub(crate) async fn run(
    connection: &Connection,
    namespace: &str,
    args: &DashboardArgs,
    output: Output,
) -> Result<Answer> {
    let wanted = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(wanted).await.map_err(|error| {
        let remedy = "choose another address or port with --address and --port, or leave out --port";
        advised(format!("can't listen at {wanted}"), &error, remedy)
    })?;
    let address = listener.local_addr().context("can't read the address of the page")?;
    let place = Place::new(address)?;
    let source = Source {
        client: connection.client.clone(),
        server: connection.server.clone(),
        namespace: namespace.to_owned(),
    };
    // Reads the data once before the page is served. So if the user lacks a necessary right, the command fails at
    // once. Otherwise, it would serve a page that shows only an error.
    source.read().await?;
    output.print(&Started { url: place.url(), server: connection.server.clone() })?;
    tokio::select! {
        served = server::serve(listener, place, source) => served.context("the page can't be served any more")?,
        interrupted = tokio::signal::ctrl_c() => interrupted.context("can't wait for Ctrl-C")?,
    }
    Ok(Answer::Yes)
}

/// Where the page is.
#[derive(Serialize)]
struct Started {
    url: String,
    server: String,
}

impl Report for Started {
    fn text(&self, _: bool) -> String {
        format!(
            "The dashboard of {} is at {}\nEveryone who knows this URL can read the page with your rights, until you press Ctrl-C. Keep the URL secret.",
            self.server, self.url
        )
    }
}
