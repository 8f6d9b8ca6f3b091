# What the description of the extension would be made of, one "NAME value" a line, for the test to read.
set(lines "")
foreach(name HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  string(APPEND lines "${name} ${EXTENSION_${name}}\n")
endforeach()
file(WRITE "${CMAKE_BINARY_DIR}/extension.txt" "${lines}")
