# Takes out of the `python` image what no program needs; before anything is compiled.
lib=$root/usr/lib/x86_64-linux-gnu
dist=$root/usr/lib/python3/dist-packages

# displays, and what only they use
rm -rf "$root"/usr/lib/python3.*/tkinter "$root"/usr/lib/python3.*/lib-dynload/_tkinter* "$dist"/PIL/_imagingtk*
rm -rf "$root"/usr/share/tcltk "$root"/usr/lib/tcltk "$root"/usr/lib/libBLT* "$root"/usr/lib/blt* "$root"/usr/share/X11
rm -rf "$lib"/libtcl8* "$lib"/libtk8* "$lib"/libX11* "$lib"/libgio-2* "$root"/usr/share/glib-2.0
rm -rf "$root"/usr/share/javascript "$root"/usr/share/nodejs "$root"/usr/share/icons

# completion and type checking of an editor
rm -rf "$dist"/*-stubs "$dist"/types_*.dist-info "$dist"/jedi "$dist"/jedi-* "$dist"/parso "$dist"/parso-*
rm -rf "$root"/usr/share/typeshed

# what installs packages or edits fonts, and speeds up one of these
rm -rf "$dist"/setuptools "$dist"/setuptools-* "$dist"/pkg_resources "$dist"/_distutils_hack "$dist"/distutils-precedence.pth
rm -rf "$dist"/inflect* "$dist"/autocommand* "$dist"/typeguard* "$dist"/ufoLib2* "$dist"/fs "$dist"/fs-* "$dist"/appdirs*
rm -rf "$dist"/unicodedata2* "$dist"/zopfli* "$root"/usr/lib/libzopfli* "$root"/usr/share/unicode

# only tests load this
rm -f "$dist"/numpy/_core/_simd.*
rm -rf "$root"/usr/share/python3-plotly/datasets "$root"/usr/share/matplotlib/mpl-data/sample_data
find "$dist" -type f '(' -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' -o -name '*.c' -o -name '*.cpp' \
  -o -name '*.h' -o -name '*.f' -o -name '*.f90' -o -name '*.tp' -o -name '*.in' ')' -delete

find "$dist" -type f -name '*.a' -delete

# other languages' parts of the base: Perl, character sets that Python has itself, and what manages packages
rm -rf "$root"/usr/bin/perl* "$root"/usr/share/perl5 "$lib"/perl* "$lib"/pkgconfig
find "$lib/gconv" -name '*.so' -size +60k -delete
rm -rf "$root"/usr/bin/dpkg* "$root"/usr/bin/openssl "$root"/usr/bin/localedef "$root"/usr/sbin/ldconfig
rm -rf "$root"/usr/lib/systemd "$root"/usr/lib/udev "$root"/usr/lib/python3.*/pydoc_data "$root"/usr/share/bash-completion
find "$root/etc/ssl/certs" -type l -delete
rm -rf "$root"/usr/share/ca-certificates "$root"/usr/share/lintian "$root"/usr/share/bug

# the two sets of DejaVu are one
for font in "$root"/usr/share/matplotlib/mpl-data/fonts/ttf/DejaVu*.ttf; do
  name=${font##*/}
  [ ! -f "$root/usr/share/fonts/truetype/dejavu/$name" ] || ln -sf "/usr/share/fonts/truetype/dejavu/$name" "$font"
done

# figures are drawn to files
[ ! -f "$root/etc/matplotlibrc" ] || sed -i 's/^#*backend *:.*/backend: agg/' "$root/etc/matplotlibrc"
