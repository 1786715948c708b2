"""Machines and the features of their CPUs, as Linux spells them (`uname -m`, /proc/cpuinfo).

Source of the names: arch/arm64/kernel/cpuinfo.c and arch/x86/include/asm/cpufeatures.h of Linux.
"""

from __future__ import annotations

from collections.abc import Mapping

_AARCH64 = """
fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp
sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2
frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32
smef16f32 smeb16f32 smef32f32 smefa64 wfxt ebf16 sveebf16 cssc rprfm sve2p1 sme2 sme2p1 smei16i32 smebi32i32 smeb16b16
smef16f16 mops hbc sveb16b16 lrcpc3 lse128 fpmr lut faminmax f8cvt f8fma f8dp4 f8dp2 f8e4m3 f8e5m2 smelutv2 smef8f16 smef8f32
smesf8fma smesf8dp4 smesf8dp2 poe gcs cmpbr fprcvt f8mm8 f8mm4 svef16mm sveeltperm sveaes2 svebfscale sve2p2 sme2p2 smesbitperm
smeaes smesfexpa smestmop smesmop4 mtefar mtestoreonly lsfe
"""
_X86_64 = """
fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 pn clflush dts acpi mmx fxsr sse sse2 ss ht tm ia64
pbe syscall mp nx mmxext fxsr_opt pdpe1gb rdtscp lm 3dnowext 3dnow recovery longrun lrti cxmmx k6_mtrr cyrix_arr
centaur_mcr k8 zen5 zen6 p3 p4 constant_tsc up art arch_perfmon pebs bts syscall32 sysenter32 rep_good amd_lbr_v2 acc_power nopl
always xtopology tsc_reliable nonstop_tsc cpuid extd_apicid amd_dcm aperfmperf rapl nonstop_tsc_s3 tsc_known_freq pni
pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm pcid dca sse4_1 sse4_2 x2apic movbe popcnt
tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor rng rng_en ace ace_en ace2 ace2_en phe phe_en pmm pmm_en
lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt lwp fma4 tce nodeid_msr
tbm topoext perfctr_core perfctr_nb bpext ptsc perfctr_llc mwaitx ring3mwait cpuid_fault cpb epb cat_l3 cat_l2 cdp_l3 tdx_host_platform
hw_pstate proc_feedback xcompacted pti kernel_ibrs intel_ppin cdp_l2 ssbd mba ibrs ibpb stibp zen ibrs_enhanced
tpr_shadow flexpriority ept vpid vmmcall xenpv ept_ad vmcall vnmi vgif coherency_sfw sme_coherent fsgsbase tsc_adjust sgx bmi1 hle
avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma
clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl xsaveopt xsavec xgetbv1 xsaves xfd cqm_llc
cqm_occup_llc cqm_mbm_total cqm_mbm_local sha512 sm3 sm4 avx_vnni avx512_bf16 cmpccxadd arch_perfmon_ext fzrm fsrs fsrc fred lkgs wrmsrns
amx_fp16 avx_ifma lam msrlist clzero irperf xsaveerptr rdpru wbnoinvd amd_ppin amd_ssbd virt_ssbd cppc amd_psfd btc_no ibpb_ret brs
dtherm ida arat pln pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req hwp_highest_perf_change hfi npt lbrv svm_lock nrip_save
tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold avic v_vmsave_vmload x2avic v_spec_ctrl extavic idle_hlt
bus_lock_threshold avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq la57
rdpid bus_lock_detect cldemote movdiri movdir64b enqcmd sgx_lc overflow_recov succor smca smba bmec abmc avx512_4vnniw avx512_4fmaps fsrm
avx512_vp2intersect md_clear rtm_always_abort serialize hybrid_cpu tsxldtrk pconfig arch_lbr ibt amx_bf16 avx512_fp16 amx_tile
amx_int8 spec_ctrl intel_stibp flush_l1d arch_capabilities core_capabilities spec_ctrl_ssbd sme sev vm_page_flush sev_es sev_snp
v_tsc_aux sme_coherent debug_swap ibpb_brtype srso_no user_shstk avx_vnni_int8 avx_ne_convert amx_complex avx_vnni_int16 prefetchi
avx10_1 avx10_2 apx uintr perfmon_v2 amd_fast_cppc amd_htr_cores workload_class split_lock_detect invpcid_single cpuid_deps
"""
FEATURES: Mapping[str, frozenset[str]] = {
    "aarch64": frozenset(_AARCH64.split()),
    "x86_64": frozenset(_X86_64.split()),
}
"""By machine."""
