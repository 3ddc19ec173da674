//! What was measured, by quantity, carrier and round; and what can be said of it.

use std::collections::BTreeMap;

use crate::{carrier::Carrier, quantity::Quantity};

/// Figures of interleaved rounds. Those of one round stand at the same place for all carriers.
#[derive(Debug, Default)]
pub(crate) struct Book(BTreeMap<(Quantity, Carrier), Vec<f64>>);

/// What rounds came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 };
        Some(Self { median, least, most })
    }
}

impl Book {
    pub(crate) fn add(&mut self, quantity: Quantity, carrier: Carrier, figure: f64) {
        self.0.entry((quantity, carrier)).or_default().push(figure);
    }

    /// By quantity, then by carrier.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Quantity, Carrier, &[f64])> {
        self.0.iter().map(|((quantity, carrier), figures)| (*quantity, *carrier, figures.as_slice()))
    }

    pub(crate) fn rounds(&self, quantity: Quantity, carrier: Carrier) -> &[f64] {
        self.0.get(&(quantity, carrier)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn spread(&self, quantity: Quantity, carrier: Carrier) -> Option<Spread> {
        Spread::of(self.rounds(quantity, carrier).to_vec())
    }

    /// One figure over another of the same round.
    pub(crate) fn ratio(&self, over: (Quantity, Carrier), under: (Quantity, Carrier)) -> Option<Spread> {
        let pairs = self.rounds(over.0, over.1).iter().zip(self.rounds(under.0, under.1));
        Spread::of(pairs.map(|(over, under)| over / under).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::Carrier::{Native, Tcp};

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let median = |figures: &[f64]| Spread::of(figures.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios_and_not_that_of_the_medians() {
        let mut book = Book::default();
        for (ours, tcp) in [(10.0, 1.0), (2.0, 2.0), (3.0, 30.0)] {
            book.add(Quantity::Trip, Native, ours);
            book.add(Quantity::Trip, Tcp, tcp);
        }
        let ratio = book.ratio((Quantity::Trip, Native), (Quantity::Trip, Tcp)).expect("both were measured");
        assert_eq!((ratio.least, ratio.median, ratio.most), (0.1, 1.0, 10.0));
        assert!(book.ratio((Quantity::Dial, Native), (Quantity::Dial, Tcp)).is_none());
    }
}
