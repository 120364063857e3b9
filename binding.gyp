{
  # A door for tools that only know node-gyp; CMakeLists.txt describes the build, scripts/build-native.mjs runs it.
  'targets': [
    {
      'target_name': 'libmoe',
      'type': 'none',
      'actions': [
        {
          'action_name': 'cmake',
          'inputs': ['CMakeLists.txt'],
          'outputs': ['<(PRODUCT_DIR)/libmoe.node'],
          'action': ['node', 'scripts/build-native.mjs', '--config', '<(CONFIGURATION_NAME)']
        }
      ]
    }
  ]
}
