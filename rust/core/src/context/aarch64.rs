//! AArch64, AAPCS64, Linux.
//!
//! A suspended stack, from its saved stack pointer up: x19 to x28, x29, the address to go on at (x30), d8 to d15. A fresh
//! one holds the entry function in x19 and goes on at `gort_context_entry`, which calls it with the value of the switch.
//! The last step of a switch is a branch, not a return: a return to another stack is mispredicted every time.

use super::Context;
use std::arch::global_asm;

/// Words a suspended stack keeps: 12 general registers and 8 halves of vector registers.
const SAVED_WORDS: usize = 20;

global_asm!(
    ".text",
    ".hidden gort_context_switch",
    ".globl gort_context_switch",
    ".type gort_context_switch,%function",
    ".p2align 6",
    "gort_context_switch:",
    ".cfi_startproc",
    "stp x19, x20, [sp, #-160]!",
    "stp x21, x22, [sp, #16]",
    "stp x23, x24, [sp, #32]",
    "stp x25, x26, [sp, #48]",
    "stp x27, x28, [sp, #64]",
    "stp x29, x30, [sp, #80]",
    "stp d8, d9, [sp, #96]",
    "stp d10, d11, [sp, #112]",
    "stp d12, d13, [sp, #128]",
    "stp d14, d15, [sp, #144]",
    "mov x9, sp",
    "str x9, [x0]",
    "ldr x9, [x1]",
    "mov sp, x9",
    "mov x0, x2",
    "ldp x21, x22, [sp, #16]",
    "ldp x23, x24, [sp, #32]",
    "ldp x25, x26, [sp, #48]",
    "ldp x27, x28, [sp, #64]",
    "ldp x29, x30, [sp, #80]",
    "ldp d8, d9, [sp, #96]",
    "ldp d10, d11, [sp, #112]",
    "ldp d12, d13, [sp, #128]",
    "ldp d14, d15, [sp, #144]",
    "ldp x19, x20, [sp], #160",
    "br x30",
    ".cfi_endproc",
    ".size gort_context_switch, .-gort_context_switch",
    ".hidden gort_context_entry",
    ".globl gort_context_entry",
    ".type gort_context_entry,%function",
    "gort_context_entry:",
    ".cfi_startproc",
    ".cfi_undefined x30",
    "mov x29, xzr",
    "blr x19",
    "brk #1",
    ".cfi_endproc",
    ".size gort_context_entry, .-gort_context_entry",
    // The personality routine is named in the frame's unwind information: 0x1b, a 32-bit distance from there.
    ".hidden gort_call_to_the_end",
    ".globl gort_call_to_the_end",
    ".type gort_call_to_the_end,%function",
    "gort_call_to_the_end:",
    ".cfi_startproc",
    ".cfi_personality 0x1b, {stay}",
    "stp x29, x30, [sp, #-16]!",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset x29, -16",
    ".cfi_offset x30, -8",
    "mov x29, sp",
    ".cfi_def_cfa_register x29",
    "mov x9, x0",
    "mov x0, x1",
    "mov x1, x2",
    "mov x2, x3",
    "blr x9",
    "ldp x29, x30, [sp], #16",
    "ret",
    ".cfi_endproc",
    ".size gort_call_to_the_end, .-gort_call_to_the_end",
    // Once it is on the suspended stack, its frame is that of the switch which left it: an unwinder goes on behind that.
    ".hidden gort_call_on",
    ".globl gort_call_on",
    ".type gort_call_on,%function",
    "gort_call_on:",
    ".cfi_startproc",
    "stp x29, x30, [sp, #-32]!",
    "str x19, [sp, #16]",
    "mov x19, sp",
    "mov sp, x0",
    ".cfi_def_cfa sp, 160",
    ".cfi_offset x19, -160",
    ".cfi_offset x20, -152",
    ".cfi_offset x21, -144",
    ".cfi_offset x22, -136",
    ".cfi_offset x23, -128",
    ".cfi_offset x24, -120",
    ".cfi_offset x25, -112",
    ".cfi_offset x26, -104",
    ".cfi_offset x27, -96",
    ".cfi_offset x28, -88",
    ".cfi_offset x29, -80",
    ".cfi_offset x30, -72",
    ".cfi_offset d8, -64",
    ".cfi_offset d9, -56",
    ".cfi_offset d10, -48",
    ".cfi_offset d11, -40",
    ".cfi_offset d12, -32",
    ".cfi_offset d13, -24",
    ".cfi_offset d14, -16",
    ".cfi_offset d15, -8",
    "mov x0, x2",
    "blr x1",
    "mov sp, x19",
    "ldr x19, [sp, #16]",
    "ldp x29, x30, [sp], #32",
    "ret",
    ".cfi_endproc",
    ".size gort_call_on, .-gort_call_on",
    // Asks the filter which function to go on with, and jumps there: nothing of ours is below it when it unwinds.
    ".hidden gort_pass_on",
    ".globl gort_pass_on",
    ".type gort_pass_on,%function",
    "gort_pass_on:",
    "stp x0, x30, [sp, #-16]!",
    "adrp x9, {filter}",
    "ldr x9, [x9, :lo12:{filter}]",
    "blr x9",
    "mov x9, x0",
    "ldp x0, x30, [sp], #16",
    "br x9",
    // The thread-local: initial-exec, so that it costs two loads also in a library opened at run time.
    ".section .tbss,\"awT\",%nobits",
    ".hidden gort_current",
    ".globl gort_current",
    ".type gort_current,%object",
    ".size gort_current, 8",
    ".p2align 3",
    "gort_current:",
    ".zero 8",
    ".text",
    ".hidden gort_current_get",
    ".globl gort_current_get",
    ".type gort_current_get,%function",
    "gort_current_get:",
    "mrs x9, tpidr_el0",
    "adrp x10, :gottprel:gort_current",
    "ldr x10, [x10, :gottprel_lo12:gort_current]",
    "ldr x0, [x9, x10]",
    "ret",
    ".hidden gort_current_set",
    ".globl gort_current_set",
    ".type gort_current_set,%function",
    "gort_current_set:",
    "mrs x9, tpidr_el0",
    "adrp x10, :gottprel:gort_current",
    "ldr x10, [x10, :gottprel_lo12:gort_current]",
    "str x0, [x9, x10]",
    "ret",
    stay = sym super::stay_here,
    filter = sym super::FILTER,
);

unsafe extern "C-unwind" {
    fn gort_context_entry();
}

unsafe extern "C" {
    fn gort_current_get() -> *mut u8;
}

/// The calling thread's pointer. Opaque to the compiler, so never cached over a switch.
#[inline(always)]
pub fn current_get() -> *mut u8 {
    // SAFETY: reads this thread's word.
    unsafe { gort_current_get() }
}

/// Reads a word of a parked stack. By an instruction of its own: a sanitizer that watches loads would object to the space
/// between variables, which is looked through too.
///
/// # Safety
/// The word is mapped and nobody writes it meanwhile.
#[inline]
pub unsafe fn stack_word(at: usize) -> usize {
    let word: usize;
    // SAFETY: the caller's promise.
    unsafe {
        std::arch::asm!("ldr {word}, [{at}]", word = out(reg) word, at = in(reg) at, options(nostack, preserves_flags, readonly))
    };
    word
}

/// Writes one, in the same way.
///
/// # Safety
/// The word is mapped and nobody else uses it meanwhile.
#[inline]
pub unsafe fn set_stack_word(at: usize, word: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        std::arch::asm!("str {word}, [{at}]", word = in(reg) word, at = in(reg) at, options(nostack, preserves_flags))
    };
}

/// A context that calls `entry(value)` on the stack below `stack_top` when first switched to.
///
/// # Safety
/// The stack is mapped, 16-aligned at the top, and used by nobody else.
pub unsafe fn init(stack_top: usize, entry: unsafe extern "C-unwind" fn(usize) -> !) -> Context {
    // A multiple of 16 below the top, as the stack pointer must always be; two words stay above.
    let sp = (stack_top & !15) - (SAVED_WORDS + 2) * 8;
    let words: *mut usize = std::ptr::with_exposed_provenance_mut(sp);
    // SAFETY: the words at the top of the caller's stack.
    unsafe {
        for i in 0..SAVED_WORDS + 2 {
            words.add(i).write(0);
        }
        words.write(entry as usize); // x19
        words.add(11).write(gort_context_entry as *const () as usize); // x30
    }
    Context { sp }
}
