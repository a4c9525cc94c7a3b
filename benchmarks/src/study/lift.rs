//! Biases of classes that a network never saw: how much they lack, by samples that are set aside for it.

/// A network's outputs for some samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// Logits, `classes` a sample.
    pub logits: Vec<f32>,
    /// The true class of each sample.
    pub labels: Vec<usize>,
    /// Classes, at least 1.
    pub classes: usize,
}

impl Outputs {
    /// Samples that are answered wrongly where `lift` is added to the logits of the classes `lifted`; only those of one class
    /// where `of` names it. The answer is the first largest logit.
    pub fn errors(&self, lifted: &[usize], lift: f32, of: Option<usize>) -> usize {
        let wrong = |(row, &label): (&[f32], &usize)| {
            let logit = |class: usize| row[class] + if lifted.contains(&class) { lift } else { 0.0 };
            let answer = (1..row.len()).fold(0, |best, class| if logit(class) > logit(best) { class } else { best });
            answer != label && of.is_none_or(|of| of == label)
        };
        self.rows().filter(|&row| wrong(row)).count()
    }

    /// What is added to the logits of the classes `lifted` so that the fewest samples are wrong. Every value that matters is
    /// tried: a sample changes sides once, where the largest lifted logit overtakes the largest other one. Of values that do
    /// equally well it is the middle of the widest range. 0 where there is no sample, or no class on a side.
    pub fn best_lift(&self, lifted: &[usize]) -> f32 {
        let mut wrong = 0_i64;
        let mut turns = Vec::new();
        for (row, &label) in self.rows() {
            let side = |inside: bool| {
                let classes = (0..row.len()).filter(|class| lifted.contains(class) == inside);
                classes.reduce(|best, class| if row[class] > row[best] { class } else { best })
            };
            let (Some(inside), Some(outside)) = (side(true), side(false)) else { return 0.0 };
            wrong += i64::from(outside != label);
            turns.push((row[outside] - row[inside], i64::from(inside != label) - i64::from(outside != label)));
        }
        turns.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Beyond both ends as well.
        let (Some(&first), Some(&last)) = (turns.first(), turns.last()) else { return 0.0 };
        turns.insert(0, (first.0 - 2.0, 0));
        turns.push((last.0 + 2.0, 0));
        let mut best: Option<(i64, f32, f32)> = None;
        for pair in turns.windows(2) {
            wrong += pair[0].1;
            let (width, middle) = (pair[1].0 - pair[0].0, pair[0].0.midpoint(pair[1].0));
            let is_better = |(least, widest, _): (i64, f32, f32)| wrong < least || (wrong == least && width > widest);
            if width > 0.0 && best.is_none_or(is_better) {
                best = Some((wrong, width, middle));
            }
        }
        best.map_or(0.0, |best| best.2)
    }

    fn rows(&self) -> impl Iterator<Item = (&[f32], &usize)> {
        self.logits.chunks_exact(self.classes.max(1)).zip(&self.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Class 2 is 4 too low; class 1 right by itself.
    fn outputs() -> Outputs {
        let rows: [([f32; 3], usize); 6] = [
            ([5.0, 1.0, 0.0], 0),
            ([5.0, 1.0, -2.0], 0),
            ([1.0, 6.0, 0.0], 1),
            ([0.0, 3.0, 0.0], 2),
            ([2.0, 0.0, -1.0], 2),
            ([0.5, 0.0, 1.0], 2),
        ];
        Outputs {
            logits: rows.iter().flat_map(|row| row.0).collect(),
            labels: rows.iter().map(|row| row.1).collect(),
            classes: 3,
        }
    }

    #[test]
    fn a_lift_is_in_the_middle_of_what_does_best() {
        let outputs = outputs();
        assert_eq!((outputs.errors(&[2], 0.0, None), outputs.errors(&[2], 0.0, Some(2))), (2, 2));
        // Right from 3 (the last of class 2) to 5 (the first of class 0).
        assert_eq!(outputs.best_lift(&[2]), 4.0);
        assert_eq!(outputs.errors(&[2], 4.0, None), 0);
        assert_eq!((outputs.errors(&[2], 5.5, None), outputs.errors(&[2], 5.5, Some(0))), (1, 1));
    }

    #[test]
    fn no_value_does_better_than_the_chosen_one() {
        // Logits without an order of their own: multiples of an odd number modulo a prime.
        let classes = 5;
        let logits: Vec<f32> = (0..classes * 200).map(|i| (i * 7919 % 1009) as f32 / 100.0).collect();
        let labels: Vec<usize> = (0..200).map(|i| i * 31 % 7 % classes).collect();
        let outputs = Outputs { logits, labels, classes };
        for lifted in [&[3][..], &[0, 4], &[1, 2, 3]] {
            let least = outputs.errors(lifted, outputs.best_lift(lifted), None);
            let tried = (-1200..1200).map(|step| outputs.errors(lifted, step as f32 / 100.0 + 0.005, None)).min();
            assert_eq!(Some(least), tried, "{lifted:?}");
        }
    }

    #[test]
    fn where_nothing_can_be_told_nothing_is_added() {
        let outputs = outputs();
        assert_eq!(outputs.best_lift(&[]), 0.0);
        assert_eq!(outputs.best_lift(&[0, 1, 2]), 0.0);
        assert_eq!(Outputs { classes: 3, ..Outputs::default() }.best_lift(&[2]), 0.0);
    }
}
