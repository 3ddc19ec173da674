//! A logarithmic axis: where figures lie, and which are named.

/// From one figure to another, on a page from one place to another.
pub(super) struct Axis {
    /// Powers of ten.
    least: f64,
    most: f64,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// Between powers of ten: what the ends are rounded to.
const BETWEEN: [f64; 3] = [1.0, 2.0, 5.0];

/// Over more powers than these, only the powers themselves have names.
const FEW: f64 = 2.5;

impl Axis {
    /// From the round figure below all to the one above.
    pub(super) fn over(figures: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) =
            figures.fold((f64::INFINITY, 0.0_f64), |(least, most), figure| (least.min(figure), most.max(figure)));
        if least > most {
            return Self { least: 0.0, most: 1.0, from, to };
        }
        let low = round_figures(least).filter(|round| *round <= least).fold(f64::MIN_POSITIVE, f64::max);
        let high = round_figures(most).filter(|round| *round >= most).fold(f64::INFINITY, f64::min);
        Self { least: low.log10(), most: high.max(low * 2.0).log10(), from, to }
    }

    pub(super) fn place(&self, figure: f64) -> f64 {
        let part = (figure.max(f64::MIN_POSITIVE).log10() - self.least) / (self.most - self.least);
        self.from + part.max(0.0) * (self.to - self.from)
    }

    /// The powers of ten, with their names.
    pub(super) fn powers(&self) -> impl Iterator<Item = (f64, String)> {
        let powers = self.least.ceil() as i32..=self.most.floor() as i32;
        powers.map(|power| (self.place(10_f64.powi(power)), name(10_f64.powi(power))))
    }

    /// The round figures, named where there is room.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, Option<String>)> {
        let has_room = self.most - self.least <= FEW;
        let powers = self.least.floor() as i32..=self.most.floor() as i32;
        let figures = powers.flat_map(|power| BETWEEN.map(|digit| (digit, digit * 10_f64.powi(power))));
        figures
            .filter(|(_, figure)| (self.least - 0.01..=self.most + 0.01).contains(&figure.log10()))
            .map(move |(digit, figure)| (self.place(figure), (has_room || digit == 1.0).then(|| name(figure))))
    }
}

/// Those around a figure.
fn round_figures(figure: f64) -> impl Iterator<Item = f64> {
    let power = figure.log10().floor() as i32;
    (power..=power + 1).flat_map(|power| BETWEEN.map(|digit| digit * 10_f64.powi(power)))
}

fn name(figure: f64) -> String {
    match figure {
        _ if figure >= 999_999.0 => format!("{:.0}M", figure / 1e6),
        _ if figure >= 9_999.0 => format!("{:.0}k", figure / 1e3),
        _ if figure >= 999.0 => format!("{},000", (figure / 1e3).round()),
        _ if figure >= 0.99 => format!("{figure:.0}"),
        _ => format!("{:.*}", (-figure.log10().floor()).max(0.0) as usize, figure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_goes_from_the_round_figure_below_to_the_one_above() {
        let axis = Axis::over([3.0, 150.0].into_iter(), 0.0, 100.0);
        assert_eq!((axis.place(2.0).round(), axis.place(20.0).round(), axis.place(200.0).round()), (0.0, 50.0, 100.0));
        let named: Vec<String> = axis.ticks().filter_map(|(_, name)| name).collect();
        assert_eq!(named, ["2", "5", "10", "20", "50", "100", "200"]);
    }

    #[test]
    fn one_figure_and_none_have_an_axis_too() {
        for figures in [vec![], vec![5.0]] {
            let axis = Axis::over(figures.into_iter(), 10.0, 20.0);
            assert!((10.0..=20.0).contains(&axis.place(5.0)));
        }
    }

    #[test]
    fn powers_have_short_names() {
        let axis = Axis::over([1.0, 10_000.0].into_iter(), 0.0, 100.0);
        let named: Vec<String> = axis.powers().map(|(_, name)| name).collect();
        assert_eq!(named, ["1", "10", "100", "1,000", "10k"]);
    }
}
