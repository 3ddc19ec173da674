//! Runs the benches, and reads what the harness says of them.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{Result, baseline::Counts};

/// What the counts depend on beside the code.
pub(crate) fn tools() -> Result<String> {
    let (rustc, valgrind) = (version("rustc")?, version("valgrind")?);
    Ok(format!("{rustc}, {valgrind}, {}", env::consts::ARCH))
}

/// The instructions of every bench.
pub(crate) fn counts(package: &Path) -> Result<Counts> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["bench", "--bench", "counts", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .args(["--", "--output-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the benches: {}", output.status).into());
    }
    String::from_utf8(output.stdout)?.lines().map(row).collect()
}

/// A line of the harness is the summary of one bench.
fn row(line: &str) -> Result<(String, u64)> {
    let summary: Value = serde_json::from_str(line)?;
    let text = |name: &str| summary[name].as_str().ok_or_else(|| format!("a summary without {name}: {summary}"));
    let path = text("module_path")?;
    let path = path.split_once("::").map_or(path, |(_, path)| path);
    let name = format!("{path}::{}", text("id")?);
    let count = summary.pointer("/profiles/0/data/total/metrics/Ir/values/new").and_then(Value::as_u64);
    let count = count.ok_or_else(|| format!("{name}: a summary without a count: {summary}"))?;
    Ok((name, count))
}

fn version(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_becomes_a_row() {
        let line = r#"{"module_path":"counts::frames::encode","id":"data_64","profiles":[{"data":{"total":{"metrics":{
            "Dr":{"values":{"new":7}},"Ir":{"values":{"new":42}}}}}}]}"#;
        assert_eq!(row(line).unwrap(), ("frames::encode::data_64".to_owned(), 42));
    }

    #[test]
    fn a_summary_without_a_count_is_no_row() {
        let line = r#"{"module_path":"counts::frames::encode","id":"data_64","profiles":[]}"#;
        assert!(row(line).unwrap_err().to_string().contains("without a count"));
    }
}
