//! `probe screenshot`: a picture of a desktop, through the gateway and its tunnel, into a file.

use std::path::PathBuf;

use clap::Args;
use http::header;
use serde_json::json;

use crate::{
    fault::{Failure, Fault},
    gateway::Gateway,
    progress::during,
    session::Session,
    words::{say, size, took},
};

#[derive(Args)]
pub(crate) struct Options {
    /// The desktop's session, such as ses_1: its key without `desktop-`.
    #[arg(value_parser = Session::parse)]
    session: Session,
    /// Where to; `-` is standard output [default: SESSION.png, or .jpg as it comes].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) async fn run(gateway: &Gateway, options: &Options, json: bool) -> Result<(), Failure> {
    let session = &options.session;
    let request = gateway.call(&session.path(gateway, "screenshot"))?;
    let answer = during("the screenshot", gateway.ask(request)).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Err(session.unanswered(gateway, why).await),
    };
    let kind = answer.header(header::CONTENT_TYPE);
    if !answer.status.is_success() || !kind.starts_with("image/") {
        return Err(session.refused(gateway, &answer));
    }
    let extension = if kind.starts_with("image/jpeg") { "jpg" } else { "png" };
    let file = options.output.clone().unwrap_or_else(|| format!("{}.{extension}", session.name).into());
    if file.as_os_str() == "-" {
        let mut stdout = std::io::stdout().lock();
        return std::io::Write::write_all(&mut stdout, &answer.body).map_err(|why| unwritten("standard output", &why));
    }
    tokio::fs::write(&file, &answer.body).await.map_err(|why| unwritten(&file.display().to_string(), &why))?;
    if json {
        let (bytes, milliseconds) = (answer.body.len(), answer.took.as_secs_f64() * 1e3);
        say(json!({ "file": file, "type": kind, "bytes": bytes, "milliseconds": milliseconds }));
    } else {
        say(format_args!("{}: {kind}, {}, in {}", file.display(), size(answer.body.len() as u64), took(answer.took)));
    }
    Ok(())
}

fn unwritten(file: &str, why: &std::io::Error) -> Failure {
    Failure::new(Fault::Probe, format!("{file}: {why}"), "it cannot be written here", "another file: -o FILE")
}
