// What GCC's libstdc++.a expects of glibc 2.32 and newer; linked in where GPTOSS_GLIBC is older.
// 0 says that there may be several threads, which is always true here: reference counts of
// exceptions then change atomically.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;
