//! x86-64, System V.
//!
//! A suspended stack, from its saved stack pointer up: r15 r14 r13 r12 rbx rbp, then the address to go on at. A fresh one
//! holds the entry function in r12 and goes on at `gort_context_entry`, which calls it with the value of the switch.
//! The last step of a switch is a jump, not a return: a return to another stack is mispredicted every time. The switch
//! starts a cache line: lying across one cost it two thirds more (docs/design/001-context-switch.md).

use super::Context;
use std::arch::global_asm;

global_asm!(
    ".hidden gort_context_switch",
    ".globl gort_context_switch",
    ".type gort_context_switch,@function",
    ".p2align 6",
    "gort_context_switch:",
    ".cfi_startproc",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdi], rsp",
    "mov rsp, [rsi]",
    "mov rax, rdx",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "pop rcx",
    "jmp rcx",
    ".cfi_endproc",
    ".size gort_context_switch, .-gort_context_switch",
    ".hidden gort_context_entry",
    ".globl gort_context_entry",
    ".type gort_context_entry,@function",
    "gort_context_entry:",
    ".cfi_startproc",
    ".cfi_undefined rip",
    "xor ebp, ebp",
    "mov rdi, rax",
    "call r12",
    "ud2",
    ".cfi_endproc",
    ".size gort_context_entry, .-gort_context_entry",
    // The personality routine is named in the frame's unwind information: 0x1b, a 32-bit distance from there.
    ".hidden gort_call_to_the_end",
    ".globl gort_call_to_the_end",
    ".type gort_call_to_the_end,@function",
    "gort_call_to_the_end:",
    ".cfi_startproc",
    ".cfi_personality 0x1b, {stay}",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "call rax",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size gort_call_to_the_end, .-gort_call_to_the_end",
    // Once it is on the suspended stack, its frame is that of the switch which left it: an unwinder goes on behind that.
    ".hidden gort_call_on",
    ".globl gort_call_on",
    ".type gort_call_on,@function",
    "gort_call_on:",
    ".cfi_startproc",
    "push rbx",
    "mov rbx, rsp",
    "lea rsp, [rdi - 8]",
    ".cfi_def_cfa rsp, 64",
    ".cfi_offset r15, -56",
    ".cfi_offset r14, -48",
    ".cfi_offset r13, -40",
    ".cfi_offset r12, -32",
    ".cfi_offset rbx, -24",
    ".cfi_offset rbp, -16",
    "mov rdi, rdx",
    "call rsi",
    "mov rsp, rbx",
    "pop rbx",
    "ret",
    ".cfi_endproc",
    ".size gort_call_on, .-gort_call_on",
    // Asks the filter which function to go on with, and jumps there: nothing of ours is below it when it unwinds.
    ".hidden gort_pass_on",
    ".globl gort_pass_on",
    ".type gort_pass_on,@function",
    "gort_pass_on:",
    "push rdi",
    "call qword ptr [rip + {filter}]",
    "pop rdi",
    "jmp rax",
    // The thread-local: initial-exec, so that it costs two loads also in a library opened at run time.
    ".section .tbss,\"awT\",@nobits",
    ".hidden gort_current",
    ".globl gort_current",
    ".type gort_current,@object",
    ".size gort_current, 8",
    ".align 8",
    "gort_current:",
    ".zero 8",
    ".text",
    ".hidden gort_current_set",
    ".globl gort_current_set",
    ".type gort_current_set,@function",
    "gort_current_set:",
    "mov rax, qword ptr [rip + gort_current@GOTTPOFF]",
    "mov qword ptr fs:[rax], rdi",
    "ret",
    stay = sym super::stay_here,
    filter = sym super::FILTER,
);

unsafe extern "C-unwind" {
    fn gort_context_entry();
}

/// The calling thread's pointer: two loads that clobber nothing. Opaque to the compiler, so never cached over a switch.
#[inline(always)]
pub fn current_get() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: reads this thread's word.
    unsafe {
        std::arch::asm!(
            "mov {p}, qword ptr [rip + gort_current@GOTTPOFF]",
            "mov {p}, qword ptr fs:[{p}]",
            p = out(reg) pointer,
            options(nostack, preserves_flags, readonly),
        );
    }
    pointer
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
        std::arch::asm!("mov {word}, qword ptr [{at}]", word = out(reg) word, at = in(reg) at, options(nostack, preserves_flags, readonly))
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
        std::arch::asm!("mov qword ptr [{at}], {word}", word = in(reg) word, at = in(reg) at, options(nostack, preserves_flags))
    };
}

/// A context that calls `entry(value)` on the stack below `stack_top` when first switched to.
///
/// # Safety
/// The stack is mapped, 16-aligned at the top, and used by nobody else.
pub unsafe fn init(stack_top: usize, entry: unsafe extern "C-unwind" fn(usize) -> !) -> Context {
    let top = stack_top & !15;
    // 16-aligned at the call instruction of the entry: seven words are popped, two stay above.
    let sp = top - 9 * 8;
    let words: *mut usize = std::ptr::with_exposed_provenance_mut(sp);
    // SAFETY: nine words at the top of the caller's stack.
    unsafe {
        for i in 0..9 {
            words.add(i).write(0);
        }
        words.add(3).write(entry as usize); // r12
        words.add(6).write(gort_context_entry as *const () as usize);
    }
    Context { sp }
}
