//! Tables of 256 entries: any function of one quantized element to another, exact because it was computed in full when
//! the plan was made; and joining along an axis with a table for each input.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::Kernel;
use crate::graph::{Slice, SliceMut};
use crate::ops::{Frame, OpError};

/// The output's bits for each of the input's.
pub type Table = Box<[u8; 256]>;

/// A function of each element.
#[derive(Debug)]
pub struct LutI8 {
    /// The function.
    pub table: Table,
}

impl Kernel for LutI8 {
    fn name(&self) -> String {
        "lut_i8/scalar".into()
    }

    fn run(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let x = frame.input(0).data;
        look_up(&self.table, x, 0, &mut frame.output(0).data, 0, x.len());
        Ok(())
    }

    fn weights_bytes(&self) -> usize {
        256
    }
}

/// Inputs joined along an axis, each through its table.
#[derive(Debug)]
pub struct ConcatI8 {
    /// One an input.
    pub tables: Vec<Table>,
    /// Elements from the axis on, of each input.
    pub runs: Vec<usize>,
}

impl Kernel for ConcatI8 {
    fn name(&self) -> String {
        "concat_i8/scalar".into()
    }

    fn run(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let all: usize = self.runs.iter().sum();
        let mut at = 0;
        for (i, (&run, table)) in self.runs.iter().zip(&self.tables).enumerate() {
            let x = frame.input(i).data;
            let blocks = x.len().checked_div(run).unwrap_or(0);
            let mut y = frame.output(0).data;
            for block in 0..blocks {
                look_up(table, x, block * run, &mut y, block * all + at, run);
            }
            at += run;
        }
        Ok(())
    }

    fn weights_bytes(&self) -> usize {
        256 * self.tables.len()
    }
}

/// `y[to..to+count] = table[x[from..from+count]]`, whatever the signs: only bits are looked up.
fn look_up(table: &Table, x: Slice<'_>, from: usize, y: &mut SliceMut<'_>, to: usize, count: usize) {
    let (x_range, y_range) = (from..from + count, to..to + count);
    match (x, y) {
        (Slice::U8(x), SliceMut::U8(y)) => {
            y[y_range].iter_mut().zip(&x[x_range]).for_each(|(y, &x)| *y = table[usize::from(x)]);
        }
        (Slice::U8(x), SliceMut::I8(y)) => {
            y[y_range].iter_mut().zip(&x[x_range]).for_each(|(y, &x)| *y = table[usize::from(x)].cast_signed());
        }
        (Slice::I8(x), SliceMut::U8(y)) => {
            y[y_range].iter_mut().zip(&x[x_range]).for_each(|(y, &x)| *y = table[usize::from(x.cast_unsigned())]);
        }
        (Slice::I8(x), SliceMut::I8(y)) => {
            let pairs = y[y_range].iter_mut().zip(&x[x_range]);
            pairs.for_each(|(y, &x)| *y = table[usize::from(x.cast_unsigned())].cast_signed());
        }
        _ => unreachable!("fused over 8-bit values only"),
    }
}
