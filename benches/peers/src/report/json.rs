//! The figures for programs: every round of every quantity, in base units, and the gates.

use serde_json::{Value, json};

use super::pinning;
use crate::{book::Book, gates::Gate, machine::Machine};

pub(crate) fn value(book: &Book, gates: &[Gate], machine: &Machine, rounds: usize) -> Value {
    let figures: Vec<Value> = book
        .iter()
        .map(|(quantity, carrier, figures)| {
            let (unit, scale) = quantity.unit().scale();
            let figures: Vec<f64> = figures.iter().map(|figure| figure / scale).collect();
            json!({ "quantity": quantity.name(), "carrier": carrier.word(), "unit": unit, "rounds": figures })
        })
        .collect();
    json!({
        "command": machine.command,
        "machine": { "cores": machine.cores, "processor": machine.processor, "kernel": machine.kernel },
        "date": machine.date,
        "rounds": rounds,
        "latency_bulk_and_scaling": pinning(),
        "figures": figures,
        "gates": gates.iter().map(gate).collect::<Vec<_>>(),
    })
}

fn gate(gate: &Gate) -> Value {
    let measured = gate.measured.map(|spread| {
        json!({
            "median": spread.median,
            "least": spread.least,
            "most": spread.most,
            "gate_met": gate.gate.is_met(spread.median),
            "goal_met": gate.goal.is_met(spread.median),
        })
    });
    json!({
        "row": gate.row,
        "figure": gate.figure,
        "gate": gate.gate.text(),
        "goal": gate.goal.text(),
        "measured": measured,
        "bounded_by": gate.bounded_by.as_ref().map(|(name, reached)| json!({ "name": name, "median": reached })),
    })
}
