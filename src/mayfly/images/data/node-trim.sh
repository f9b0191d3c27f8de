# Takes out of the `node` image what no program needs; before anything is compiled.
rm -rf "$root"/usr/include "$root"/usr/share/nodejs/npm "$root"/usr/share/javascript "$root"/usr/lib/python3.*/pydoc_data
rm -rf "$root"/usr/lib/python3.*/tkinter "$root"/usr/lib/python3.*/lib-dynload/_tkinter*
find "$root/usr/share/nodejs" -type f '(' -name '*.d.ts' -o -name '*.map' -o -name '*.md' ')' -delete 2>/dev/null || true
