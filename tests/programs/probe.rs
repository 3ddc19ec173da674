//! The probe: what it shows of a sandbox, and that its doctor names what is wrong.

mod doctor;
mod faults;
mod idle;
mod looks;
mod network;
mod pace;
mod servers;

use serde_json::Value;

use crate::{
    Gateway, TOKEN,
    process::{Ended, Program},
};

/// Runs the probe about a gateway, without what the environment of the tests says of proxies.
async fn probe(gateway: &Gateway, command: &str) -> Ended {
    at(&format!("http://{}", gateway.addr), command).await
}

async fn at(server: &str, command: &str) -> Ended {
    Program::run(&format!("probe {command} --server {server}"), &[("NO_PROXY", "*")]).await
}

/// A sandbox that is connected.
async fn sandbox(gateway: &Gateway, key: &str) -> Program {
    let sandbox = Program::start(&format!("sandbox --server http://{} --key {key} --token {TOKEN}", gateway.addr));
    sandbox.logs("connected").await;
    sandbox
}

/// Asserts that the doctor ended with this code, and that the step with the fault says all of this, the cause and the
/// next command among it.
#[track_caller]
fn assert_fault(ended: &Ended, code: i32, step: &str, says: &[&str]) {
    assert_eq!(ended.status.code(), Some(code), "{ended:?}");
    let found = format!("FAIL  {step:<10}  ");
    let (_, told) = ended.stdout.split_once(&found).unwrap_or_else(|| panic!("no {found:?}: {ended:?}"));
    let told: String = told.split_inclusive('\n').take(3).collect();
    for text in says.iter().chain(&["      cause  ", "      next  "]) {
        assert!(told.contains(text), "no {text:?}: {ended:?}");
    }
    assert!(ended.stdout.contains(&format!("first fault: {step} (exit code {code})")), "{ended:?}");
    assert_eq!(ended.stderr, "", "progress is for terminals");
}

#[track_caller]
fn assert_well(ended: &Ended) {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("\nno fault found\n"), "{ended:?}");
}

/// Asserts that no fault was found where these steps could not be looked at.
#[track_caller]
fn assert_unseen(ended: &Ended, steps: &str) {
    assert_eq!(ended.status.code(), Some(20), "{ended:?}");
    let last = format!("\nno fault found; not looked at: {steps} (exit code 20)\n");
    assert!(ended.stdout.ends_with(&last), "{ended:?}");
}

/// What a step said, by the doctor's `--json`.
#[track_caller]
fn step(ended: &Ended, name: &str) -> Value {
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|why| panic!("{why}: {ended:?}"));
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("no {name}: {ended:?}")).clone()
}
